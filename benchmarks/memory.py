"""python benchmarks/memory.py [--clips=20000]: memory of the input pipeline over many clips.

Reads training batches (32 frames of 224 x 224 pixels, 8 clips each) of an ingested Kinetics-like dataset in two
decoding processes, and notes the memory of all processes together (Pss: what they share is counted once) as it goes.
Writes `benchmarks/results/memory.json` and `memory.png`.
"""

import argparse
import contextlib
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from input_pipeline import prepare
from loaders import BATCH, config
from train import RESULTS, machine

NOTES = 200


def tree(pid: int) -> list[int]:
    """A process and all that came of it."""
    children = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a thread that has just ended
            children += (task / "children").read_text().split()
    return [pid, *(grandchild for child in children for grandchild in tree(int(child)))]


def memory(pid: int) -> float:
    """MiB of a process and all that came of it."""
    kilobytes = 0
    for member in tree(pid):
        lines = Path(f"/proc/{member}/smaps_rollup").read_text().splitlines()
        kilobytes += int(next(line for line in lines if line.startswith("Pss:")).split()[1])
    return kilobytes / 1024


def measure(clips: int, num_workers: int) -> dict[str, Any]:
    from vivit_jax.data.datasets import VideoDataset
    from vivit_jax.data.pipeline import train_batches

    with tempfile.TemporaryDirectory() as temporary:
        prepare(None, Path(temporary), 0)
        data_dir = str(Path(temporary) / "h264")
        source = VideoDataset(data_dir, "clips").source("train")
        seen, mebibytes, start = [], [], time.perf_counter()
        steps = clips // BATCH
        for step, batch in enumerate(train_batches(source, config(data_dir, num_workers), 0, steps), 1):
            assert batch["weight"].all()
            if step % max(steps // NOTES, 1) == 0:
                seen.append(step * BATCH)
                mebibytes.append(round(memory(os.getpid()), 1))
    seconds = time.perf_counter() - start
    late = np.asarray(seen) > clips / 10  # after all buffers are full
    slope = np.polyfit(np.asarray(seen)[late], np.asarray(mebibytes)[late], 1)[0]
    return {
        "clips": clips,
        "num_workers": num_workers,
        "seconds": round(seconds, 1),
        "mebibytes_per_1000_clips_after_a_tenth": round(1000 * float(slope), 3),
        "lowest_and_highest_after_a_tenth": [float(x) for x in np.percentile(np.asarray(mebibytes)[late], [0, 100])],
        "clips_seen": seen,
        "mebibytes": mebibytes,
    }


def plot(results: dict[str, Any]) -> None:
    figure, axis = plt.subplots(figsize=(7, 3), layout="constrained")
    axis.plot(results["clips_seen"], results["mebibytes"])
    axis.set(xlabel="clips read", ylabel="MiB, all processes", ylim=(0, None))
    figure.savefig(RESULTS / "memory.png", dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=20_000)
    parser.add_argument("--num_workers", type=int, default=2)
    arguments = parser.parse_args()
    results = measure(arguments.clips, arguments.num_workers)
    (RESULTS / "memory.json").write_text(json.dumps({"machine": machine(), **results}, indent=2) + "\n")
    plot(results)
    print({key: value for key, value in results.items() if key not in ("clips_seen", "mebibytes")})


if __name__ == "__main__":
    main()
