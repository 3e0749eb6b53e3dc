"""python benchmarks/crops.py [--rounds=N]: three crops of a clip from one decoding, beside a decoding for each.

32 frames, stride 2, of ten seconds of 340 x 256 pixels as they are ingested, cropped to 224 x 224 at three places, as
evaluation does. One core; the two take turns, and what is reported is the ratio within each round. results/crops.json.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from input_pipeline import prepare
from train import RESULTS, machine, times_faster

from vivit_jax.data.datasets import VideoDataset
from vivit_jax.data.decode import decode_crops
from vivit_jax.data.sampling import view_boxes

SIZE, FRAMES = (224, 224), np.arange(20, 84, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        prepare(None, Path(folder), 0)
        for storage in ("h264", "jpeg"):
            example = VideoDataset(str(Path(folder) / storage), "clips").source("train")[0]
            boxes = view_boxes(example["height"], example["width"], 224, SIZE, 3)
            how: dict[str, Any] = dict(size=SIZE, frame_sizes=example["frame_sizes"])
            seconds: dict[str, list[float]] = {"once": [], "for each": []}
            for _ in range(rounds):
                start = time.perf_counter()
                once = decode_crops(example["video"], FRAMES, boxes, **how)
                middle = time.perf_counter()
                each = [decode_crops(example["video"], FRAMES, [box], **how)[0] for box in boxes]
                seconds["once"].append(middle - start)
                seconds["for each"].append(time.perf_counter() - middle)
                np.testing.assert_array_equal(once, each)
            results[storage] = {
                "median_seconds": {name: statistics.median(of) for name, of in seconds.items()},
                "times_faster": times_faster(*seconds.values()),
            }
    facts = {"machine": machine() | {"av": version("av")}, "rounds": rounds, "results": results}
    (RESULTS / "crops.json").write_text(json.dumps(facts, indent=1) + "\n")
    print(json.dumps(results))


if __name__ == "__main__":
    main()
