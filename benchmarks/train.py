"""python benchmarks/train.py SUITE [--keep=DIR]: trains the runs of a suite one after another, and reports them.

Writes `benchmarks/results/SUITE.json` (the metrics as they came out, with versions and machine) and `SUITE.png` (loss
and validation accuracy by step). The suite `finetune` expects a dataset ingested as `mine` under `data/`.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

RESULTS = Path(__file__).parent / "results"
SUITES = {
    "demo": {
        "factorized encoder, configs/demo.py as it stands": ["--config=configs/demo.py"],
        "TimeSformer, divided, tubelets of 2 frames": [
            "--config=configs/demo.py",
            "--config.model.name=timesformer_b",
            "--config.model.tubelet_size=2",
            "--config.model.initializer=xavier",
            "--config.model.stochastic_depth=0.0",
            "--config.train.epochs=14.0",
        ],
        "TimeSformer, space only": [
            "--config=configs/demo.py",
            "--config.model.name=timesformer_b_space",
            "--config.model.initializer=xavier",
            "--config.model.stochastic_depth=0.0",
        ],
    },
    "finetune": {
        "TimeSformer, divided, small": [
            "--config=configs/finetune.py",
            "--config.model.width=96",
            "--config.model.num_layers=4",
            "--config.model.num_heads=4",
            "--config.model.mlp_dim=384",
            "--config.model.image_size=96",
            "--config.data.eval_resize=108",
            "--config.data.stride=4.0",
            "--config.schedule.learning_rate=5e-4",
            "--config.evaluation.splits=('train','validation')",
        ],
    },
}


def train(flags: list[str], workdir: Path) -> dict[str, Any]:
    """Runs one configuration to its end, and gathers what it wrote."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "vivit_jax.main", f"--workdir={workdir}", *flags], check=True)
    seconds = time.perf_counter() - start
    log = [json.loads(line) for line in (workdir / "log.jsonl").read_text().splitlines()]
    speeds = [line["train/clips_per_second"] for line in log if "train/clips_per_second" in line][1:]
    return {
        "flags": flags,
        "metrics": json.loads((workdir / "metrics.json").read_text()),
        "wall_seconds": round(seconds, 1),
        "clips_per_second": {
            "median": round(statistics.median(speeds), 1),
            "quartiles": [round(x, 1) for x in statistics.quantiles(speeds, n=4)[::2]],
        },
        "log": log,
    }


def plot(runs: dict[str, dict[str, Any]], path: Path) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4))
    for name, run in runs.items():
        loss = [(line["step"], line["train/loss"]) for line in run["log"] if "train/loss" in line]
        top_1 = [(line["step"], line["validation/top_1"]) for line in run["log"] if "validation/top_1" in line]
        top_1.append((run["metrics"]["step"], run["metrics"]["validation"]["top_1"]))
        left.plot(*zip(*loss, strict=True), label=name)
        right.plot(*zip(*top_1, strict=True), marker="o", label=name)
    chance = max(run["metrics"]["validation"]["majority_class"] for run in runs.values())
    right.axhline(chance, color="gray", linestyle=":", label="always the largest class")
    left.set(xlabel="step", ylabel="training loss (one batch)")
    right.set(xlabel="step", ylabel="validation top-1", ylim=(0, 1.02))
    right.legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def machine() -> dict[str, Any]:
    cpu = next((x for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name")), "")
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "av")
    return {
        "cores": os.cpu_count(),
        "cpu": cpu.partition(":")[2].strip(),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


def earlier(path: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """What a result file holds, if it is of the same software on such a machine, for rounds to be added to: one run of
    few rounds says little where a machine's speed changes within hours."""
    known = json.loads(path.read_text()) if path.exists() else {}
    return known if known.get("machine") == facts else {}


def times_faster(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """The ratio within each round of two that took turns."""
    ratio = sorted(b / a for a, b in zip(ours, theirs, strict=True))
    return {"median": statistics.median(ratio), "lowest": ratio[0], "highest": ratio[-1]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", choices=SUITES)
    parser.add_argument("--keep", type=Path, help="where the runs stay; a temporary folder by default")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = arguments.keep or Path(temporary)
        runs = {
            name: train(flags, root / f"{arguments.suite}_{index}")
            for index, (name, flags) in enumerate(SUITES[arguments.suite].items())
        }
    RESULTS.mkdir(exist_ok=True)
    plot(runs, RESULTS / f"{arguments.suite}.png")
    report = {"machine": machine(), "runs": runs}
    (RESULTS / f"{arguments.suite}.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
