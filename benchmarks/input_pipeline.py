"""python benchmarks/input_pipeline.py [--video=FILE] [--rounds=N]: clips per second and core, beside other loaders.

Every loader runs in a process of its own, bound to one core, and in each round decodes the same frames of the same
ingested video: 32 frames, stride 2, at random starts, cropped at random to 224 x 224. The rounds of all loaders take
turns. `bare` is the yardstick: PyAV decodes and converts the frames to RGB, without a crop, a batch or a record around
it. Loaders that are not installed are left out; `pip install -e ".[peers]"` has them
all. Writes `benchmarks/results/input_pipeline.json`.
"""

import argparse
import importlib
import importlib.util
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from loaders import BATCH, CLIPS, PACKAGES, PEERS, Clip, bare, config, pipeline


def serve(name: str, folder: Path) -> None:
    """Runs a round whenever a line comes in, and answers with its seconds."""
    clips: list[Clip] = json.loads((folder / "clips.json").read_text())
    video = folder / "video.mp4"
    kind, *options = name.split()
    if kind == "pipeline":
        run = pipeline(str(folder / options[0]), int(options[1]))
    else:
        run = bare(video, clips, int(options[0])) if kind == "bare" else PEERS[kind](video, clips)
    run()
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        run()
        print(time.perf_counter() - start, flush=True)


def prepare(video: Path | None, folder: Path, rounds: int) -> None:
    """Ingests the video (16 copies of it), and writes down which frames and crops the pipeline takes."""
    from vivit_jax.data import reading
    from vivit_jax.data.datasets import VideoDataset
    from vivit_jax.data.pipeline import train_batches
    from vivit_jax.ingest import ingest

    source = video or render(folder / "rendered.mp4")
    for copy in range(20):
        target = folder / "videos" / "ab"[copy % 2] / f"{copy}{source.suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
    for storage in ("h264", "jpeg"):
        ingest(folder / "videos", "clips", folder / storage, storage=storage)
    split = VideoDataset(folder / "h264", "clips").source("train")
    (folder / "video.mp4").write_bytes(split[0]["video"])
    clips: list[Any] = []

    def note(video, frames, boxes, *, size, frame_sizes, out):
        clips.append((frames.tolist(), *boxes))
        return out

    decode, reading.decode_crops = reading.decode_crops, note
    for _ in train_batches(split, config(str(folder / "h264"), 0), 0, (rounds + 1) * CLIPS // BATCH):
        continue
    reading.decode_crops = decode
    (folder / "clips.json").write_text(json.dumps(clips[: (rounds + 1) * CLIPS]))


def render(path: Path) -> Path:
    """Ten seconds of 340 x 256 pixels at 30 frames per second, as Kinetics has them: a moving camera's."""
    import av

    rng = np.random.default_rng(0)
    scene = np.zeros((600, 900, 3))
    for cell in (100, 50, 20, 5):
        coarse = rng.uniform(-1, 1, (600 // cell, 900 // cell, 3))
        scene += coarse.repeat(cell, 0).repeat(cell, 1) * cell**0.4
    scene = (255 * (scene - scene.min()) / (scene.max() - scene.min())).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 340, 256, "yuv420p"
        for index in range(300):
            top, left = int(150 + 120 * np.sin(index / 25)), int(260 + 240 * np.cos(index / 40))
            picture = np.ascontiguousarray(scene[top : top + 256, left : left + 340])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


class Loader:
    """A process that decodes."""

    def __init__(self, name: str, folder: Path, cores: set[int]):
        command = [sys.executable, __file__, "--serve", name, "--folder", str(folder)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
            preexec_fn=lambda: os.sched_setaffinity(0, cores), env=os.environ | {"JAX_PLATFORMS": "cpu"},
        )  # fmt: skip
        while (line := self._read()) != "ready":
            if not line:
                raise RuntimeError(f"{name} does not start")
        self._signal(signal.SIGSTOP)

    def _signal(self, number: int) -> None:
        """To it and its own workers, which are not to run ahead while it is another's turn."""
        os.killpg(self.process.pid, number)

    def _read(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def round(self) -> float:
        """Clips per second."""
        assert self.process.stdin
        self._signal(signal.SIGCONT)
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        seconds = float(self._read())
        self._signal(signal.SIGSTOP)
        return CLIPS / seconds

    def close(self) -> None:
        self._signal(signal.SIGKILL)


def measure(folder: Path, rounds: int) -> dict[str, Any]:
    cores = sorted(os.sched_getaffinity(0))
    one, every = {cores[0]}, set(cores)
    loaders = {"bare": ("bare 1", one), "pipeline, threads": ("pipeline h264 0", one)}
    loaders["pipeline, 1 process"] = ("pipeline h264 1", one)
    loaders["pipeline, JPEG storage, threads"] = ("pipeline jpeg 0", one)
    loaders |= {name: (name, one) for name in PEERS if importlib.util.find_spec("cv2" if name == "opencv" else name)}
    loaders[f"bare, {len(cores)} processes, {len(cores)} cores"] = (f"bare {len(cores)}", every)
    loaders[f"pipeline, threads, {len(cores)} cores"] = ("pipeline h264 0", every)
    loaders[f"pipeline, {len(cores)} processes, {len(cores)} cores"] = (f"pipeline h264 {len(cores)}", every)
    running = {title: Loader(name, folder, where) for title, (name, where) in loaders.items()}
    speeds: dict[str, list[float]] = {title: [] for title in running}
    for _ in range(rounds):
        for title, loader in running.items():
            speeds[title].append(loader.round())
    for loader in running.values():
        loader.close()
    return {
        title: {
            "clips_per_second": _quartiles(values),
            "of_bare": _quartiles([value / bare for value, bare in zip(values, speeds["bare"], strict=True)]),
        }
        for title, values in speeds.items()
    }


def _quartiles(values: list[float]) -> list[float]:
    """First, second (the median) and third."""
    return [round(x, 3) for x in statistics.quantiles(values, n=4)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--video", type=Path)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--serve")
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve, arguments.folder)
        return
    from train import RESULTS, machine

    with tempfile.TemporaryDirectory() as temporary:
        prepare(arguments.video, Path(temporary), arguments.rounds)
        results = measure(Path(temporary), arguments.rounds)
    peers = {PACKAGES[name]: version(PACKAGES[name]) for name in PEERS if name in results}
    report = {"machine": machine(), "versions": {"av": version("av")} | peers, "rounds": arguments.rounds}
    report |= {"video": arguments.video.name if arguments.video else "rendered", "quartiles": results}
    name = "input_pipeline.json" if arguments.video is None else f"input_pipeline_{arguments.video.stem}.json"
    (RESULTS / name).write_text(json.dumps(report, indent=2) + "\n")
    for title, values in results.items():
        low, middle, high = values["of_bare"]
        print(f"{title}: {values['clips_per_second'][1]:.2f} clips/s, {middle:.2f} ({low:.2f}-{high:.2f}) of bare")


if __name__ == "__main__":
    main()
