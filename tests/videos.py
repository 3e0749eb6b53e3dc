"""Writes small video files of every kind a user may bring, good and bad."""

from pathlib import Path

import av
import numpy as np

from vivit_jax.data.decode import decode_crops

CODECS = {".mp4": "libx264", ".mkv": "libx264", ".avi": "mpeg4", ".mov": "libx264"}


def write(path: Path, num_frames: int = 12, height: int = 48, width: int = 64, fps: int = 25, seed: int = 0, **options):
    """A random picture that scrolls; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    picture = picture.repeat(8, 0).repeat(8, 1)
    with av.open(str(path), "w", options={str(k): str(v) for k, v in options.items()}) as container:
        stream = container.add_stream(CODECS[path.suffix], rate=fps)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for index in range(num_frames):
            frame = av.VideoFrame.from_ndarray(np.roll(picture, 3 * index, axis=1), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_audio(path: Path) -> Path:
    """A file with sound alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        samples = np.random.default_rng(0).uniform(-0.1, 0.1, (1, 16000)).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def decode(video, indices, box=None, size=None, frame_sizes=()) -> np.ndarray:
    """Frames of an ingested video, whole or a single crop of each."""
    return decode_crops(video, indices, [box], size=size, frame_sizes=frame_sizes)[0]


def truncate(path: Path, part: float = 0.6) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data))])
    return path


def folder(root: Path, sizes: dict[str, int], suffix: str = ".mp4") -> Path:
    """A folder per class with so many videos each, all different."""
    for number, (label, size) in enumerate(sizes.items()):
        for index in range(size):
            write(root / label / f"{index}{suffix}", num_frames=8 + index % 5, seed=100 * number + index)
    return root
