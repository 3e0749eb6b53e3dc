"""Seconds of `--mode=predict` from its start to its end: one clip of 10 s, one view, ViViT-B FE, nothing compiled yet.

    python benchmarks/predict.py

The clip (340 x 256, H.264) is made here, and the weights are random. results/predict.json has every round with
its stages.
"""

import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
from train import RESULTS, machine

import vivit_jax

ROUNDS, FRAMES, RATE, WIDTH, HEIGHT = 5, 300, 30, 340, 256


def write_clip(path: Path) -> None:
    """Ten seconds of a picture of smooth noise that moves to the left."""
    rng = np.random.default_rng(0)
    coarse: Any = rng.integers(0, 256, (HEIGHT // 16, 2 * WIDTH // 16, 3), np.uint8)
    picture = av.VideoFrame.from_ndarray(coarse, "rgb24").reformat(2 * WIDTH, HEIGHT).to_rgb().to_ndarray()
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(FRAMES):
            left = number * WIDTH // FRAMES
            seen: Any = np.ascontiguousarray(picture[:, left : left + WIDTH])
            frame = av.VideoFrame.from_ndarray(seen, "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def main() -> None:
    rounds = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_clip(folder / "clip.mp4")
        vivit_jax.save_pretrained(vivit_jax.create_model("vivit_b16x2_fe", 400), folder / "model")
        command = [sys.executable, "-m", "vivit_jax.main", "--mode=predict", "--verbose"]
        command += [f"--input={folder}/clip.mp4", f"--checkpoint={folder}/model"]
        for number in range(ROUNDS):
            cold = {"XDG_CACHE_HOME": str(folder / f"cache {number}"), "PATH": "/usr/bin:/bin", "JAX_PLATFORMS": "cpu"}
            began = time.perf_counter()
            done = subprocess.run(command, env=cold, capture_output=True, text=True, check=True)
            seconds = time.perf_counter() - began
            stages = {what: float(of) for what, of in re.findall(r"(\w+) ([\d.]+) s", done.stderr)}
            rounds.append({"seconds": seconds, "stages": stages})
            print(json.dumps(rounds[-1]), flush=True)
    median = statistics.median(one["seconds"] for one in rounds)
    facts = {"machine": machine(), "median_seconds": median, "rounds": rounds}
    (RESULTS / "predict.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
