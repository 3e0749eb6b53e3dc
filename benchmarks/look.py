"""python benchmarks/look.py [--workdir=runs/demo]: a picture by --mode=look, and the memory that it takes.

Draws attention rollout for a validation video of a run of `configs/demo.py`, which is trained where no workdir is
given, into `benchmarks/results/rollout.png`. Then looks at the same video with full-size models of random weights,
each in a process of its own, and writes `benchmarks/results/look.json`: seconds, the size of the model, and the peak of
the process's memory.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from train import RESULTS, machine, train

MODELS = ("vivit_b16x2", "vivit_b16x2_fe", "timesformer_b", "timesformer_b_joint")
VIDEO = "rotate_clockwise/00003_rotate_clockwise.mp4"


def draw(workdir: Path, video: Path, folder: Path) -> None:
    flags = ["--mode=look", f"--input={video}", f"--workdir={workdir}", f"--output={folder}"]
    subprocess.run([sys.executable, "-m", "vivit_jax.main", *flags], check=True)
    shutil.copy(folder / f"{video.stem}_rollout.png", RESULTS / "rollout.png")


def measure(name: str, video: Path) -> dict[str, Any]:
    """Looks in this process."""
    import jax
    from flax import nnx

    import vivit_jax
    from vivit_jax.evaluation.visualize import look

    model = vivit_jax.create_model(name, num_classes=400)
    size = sum(x.nbytes for x in jax.tree.leaves(nnx.state(model)))
    with tempfile.TemporaryDirectory() as temporary:
        start = time.perf_counter()
        look(model, video, temporary)
        seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": round(seconds, 1), "model_bytes": size, "peak_bytes": peak}


def videos_of(workdir: Path) -> Path:
    data = json.loads((workdir / "config.json").read_text())["data"]
    return Path(data["data_dir"]).expanduser() / f"{data['name']}_videos" / "validation"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=Path, help="of a run of configs/demo.py")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure[0], Path(arguments.measure[1]))))
        return
    with tempfile.TemporaryDirectory() as temporary:
        workdir = arguments.workdir or Path(temporary) / "demo"
        if arguments.workdir is None:
            train(["--config=configs/demo.py"], workdir)
        video = videos_of(workdir) / VIDEO
        draw(workdir, video, Path(temporary) / "look")
        found = {}
        for name in MODELS:
            command = [sys.executable, __file__, "--measure", name, str(video)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[name] = json.loads(done.stdout.splitlines()[-1])
            print(name, found[name], flush=True)
    (RESULTS / "look.json").write_text(json.dumps({"machine": machine(), "looks": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
