"""Damaged video files of every kind, drawn by a seed."""

import struct
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import av
import numpy as np

import videos

KINDS = ("truncated", "bits", "zeros", "swapped", "audio", "one frame", "8K", "duration", "empty", "noise")
SUFFIXES = (".mp4", ".avi", ".mkv", ".mov")


class Bench:
    """Files that damage starts from, written once."""

    def __init__(self, folder: Path):
        self.folder = folder

    @cached_property
    def whole(self) -> dict[str, list[bytes]]:
        """Four of each container."""
        paths = {suffix: [self.folder / f"{n}{suffix}" for n in range(4)] for suffix in SUFFIXES}
        return {
            suffix: [videos.write(path, num_frames=20 + n, seed=n).read_bytes() for n, path in enumerate(of)]
            for suffix, of in paths.items()
        }

    @cached_property
    def audio(self) -> bytes:
        return videos.write_audio(self.folder / "sound.mp4").read_bytes()

    @cached_property
    def single(self) -> bytes:
        return videos.write(self.folder / "still.mp4", num_frames=1).read_bytes()

    @cached_property
    def large(self) -> bytes:
        """Two frames of 7680 x 4320 pixels."""
        path = self.folder / "large.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast", "crf": "40"})
            stream.width, stream.height, stream.pix_fmt = 7680, 4320, "yuv420p"
            for value in (60, 120):
                picture = np.full((4320, 7680, 3), value, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode(None))
        return path.read_bytes()


def damaged(folder: Path, count: int, seed: int = 0) -> Iterator[tuple[str, str, bytes]]:
    """(kind, suffix, content) of `count` files, all kinds alike."""
    bench, rng = Bench(folder), np.random.default_rng(seed)
    for number in range(count):
        kind, suffix = KINDS[number % len(KINDS)], SUFFIXES[int(rng.integers(4))]
        yield kind, suffix, _damage(kind, suffix, bench, rng)


def _damage(kind: str, suffix: str, bench: Bench, rng: np.random.Generator) -> bytes:
    whole = bench.whole[suffix][int(rng.integers(4))]
    if kind == "truncated":
        return whole[: int(rng.uniform(0.02, 0.98) * len(whole))]
    if kind == "bits":
        data = np.frombuffer(whole, np.uint8).copy()
        where = rng.integers(0, len(data), int(rng.integers(1, 40)))
        data[where] ^= np.uint8(1) << rng.integers(0, 8, len(where)).astype(np.uint8)
        return data.tobytes()
    if kind == "zeros":
        start = int(rng.integers(0, len(whole) - 200))
        return whole[:start] + bytes(200) + whole[start + 200 :]
    if kind == "swapped":  # what is in it is another container, or no video at all
        return [bench.whole[".mkv"][0], bench.whole[".avi"][1], b"\x89PNG\r\n\x1a\n" + rng.bytes(300), b"text\n" * 50][
            int(rng.integers(4))
        ]
    if kind == "duration":  # the movie's and the track's headers claim days, and one frame lasts for hours
        data = bench.whole[".mp4"][0]
        at = data.index(b"mvhd") + 4
        data = data[: at + 16] + struct.pack(">I", 0xFFFFFFF0) + data[at + 20 :]
        at = data.index(b"stts") + 12
        return data[: at + 4] + struct.pack(">I", int(rng.integers(1 << 24, 1 << 31))) + data[at + 8 :]
    if kind in ("audio", "one frame", "8K"):
        return {"audio": bench.audio, "one frame": bench.single, "8K": bench.large}[kind]
    return b"" if kind == "empty" else rng.bytes(int(rng.integers(1, 5000)))
