"""Time from starting the command to its first step, at first and after a kill: what the kept programs are worth.

    python benchmarks/restart.py

Each round starts a run in a new workdir, kills it at its first checkpoint, and starts it again from there; the time is
that to the first step that is logged. results/restart.json has all rounds, and `--help` beside them.
"""

import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from train import RESULTS, machine

ROUNDS = 3
MAIN = [sys.executable, "-m", "vivit_jax.main"]
RUN = ["--config=configs/demo.py", "--config.train.log_every=1", "--config.train.checkpoint_every=1"]
MODELS = {
    "demo": [],
    "12 layers, 384 wide": [
        "--config.model.width=384", "--config.model.num_layers=12", "--config.model.num_heads=6",
        "--config.model.mlp_dim=1536", "--config.train.batch_size=8", "--config.evaluation.batch_size=8",
    ],
}  # fmt: skip


def first_step(flags: list[str], workdir: Path) -> float:
    """Seconds until a step is logged; the run is killed when one is saved."""
    log = workdir / "log.jsonl"
    log.unlink(missing_ok=True)
    began = time.perf_counter()
    process = subprocess.Popen(
        [*MAIN, *RUN, *flags, f"--workdir={workdir}"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )

    def wait(done) -> None:
        while not done():
            if process.poll() is not None:
                raise SystemExit(process.stderr.read().decode() if process.stderr else "")
            time.sleep(0.01)

    wait(lambda: log.exists() and "train/loss" in log.read_text())
    seconds = time.perf_counter() - began
    wait(lambda: any(path.name.isdigit() for path in (workdir / "checkpoints").glob("*")))
    process.send_signal(signal.SIGKILL)
    process.wait()
    return seconds


def main() -> None:
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        data = f"--config.data.data_dir={folder}/data"
        first_step([data], Path(folder) / "renders the dataset")
        for name, model in MODELS.items():
            rounds = []
            for number in range(ROUNDS):
                workdir = Path(folder) / f"{name} {number}"
                rounds.append([first_step([data, *model], workdir) for _ in range(2)])
            ratio = [again / first for first, again in rounds]
            results[name] = {
                "first_and_again_seconds": rounds,
                "ratio_median": statistics.median(ratio),
                "ratios": ratio,
            }
            print(name, json.dumps(results[name]), flush=True)
    helps = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        subprocess.run([*MAIN, "--help"], stdout=subprocess.DEVNULL, check=False)
        helps.append(time.perf_counter() - began)
    facts = {"machine": machine(), "help_seconds": helps, "models": results}
    (RESULTS / "restart.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
