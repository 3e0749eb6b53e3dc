"""The demonstration videos as files: every scene of `motion`, and its reverse."""

import os
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from vivit_jax.data import workers
from vivit_jax.data.motion import CLASSES, FPS, PAIRS, SIZE, render


def _encode(path: Path, frames: Iterable[av.VideoFrame]) -> None:
    with av.open(path, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "superfast", "crf": "18"})
        stream.width = stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1  # scenes are encoded side by side
        for pts, frame in enumerate(frames):
            frame.pts = pts
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@dataclass(frozen=True)
class _Share:
    """Scenes of a split, for one process to write; a scene is the same whoever renders it."""

    split: Path
    seed: tuple[int, ...]
    scenes: range
    pairs: tuple[tuple[str, str], ...]


def _write_share(share: _Share) -> None:
    for scene in share.scenes:
        rng = np.random.default_rng((*share.seed, scene))
        pair = share.pairs[scene % len(share.pairs)]
        kinds = rng.permutation(pair)  # which of the two is rendered and which one reversed
        reformatter = VideoReformatter()  # the frame's own `reformat` builds a scaler, with threads, for every frame
        rgb = (av.VideoFrame.from_ndarray(image, format="rgb24") for image in render(kinds[0], rng))
        frames = [reformatter.reformat(frame, format="yuv420p", threads=1) for frame in rgb]
        for kind, ordered in zip(kinds, (frames, frames[::-1]), strict=True):
            _encode(share.split / kind / f"{scene:05d}_{kind}.mp4", ordered)


def generate(
    directory: str | Path,
    *,
    num_train: int = 2048,
    num_validation: int = 512,
    classes: Sequence[str] = CLASSES,
    seed: int = 0,
    num_workers: int | None = None,
) -> None:
    """Writes directory/{train,validation}/<class>/<scene>_<class>.mp4: H.264, 23 frames of 64 x 64 pixels at 25 fps.

    The same number of videos for every class; a scene's two videos share the number in their names and the split. The
    same arguments give the same videos, however many worker processes (default: one per core) share the work. The
    directory appears when it is complete.

    Args:
      classes: those of some of `PAIRS`.
    Raises:
      ValueError: a class without its opposite, or a number of videos that is not a multiple of the number of classes.
      FileExistsError: there is a directory already.
      RuntimeError: a worker failed, for example because the disk is full.
    """
    directory = Path(directory)
    pairs = tuple(pair for pair in PAIRS if set(pair) <= set(classes))
    if sorted(classes) != sorted(kind for pair in pairs for kind in pair) or not pairs:
        raise ValueError(f"classes={', '.join(classes)}: are none, or not all in pairs of {PAIRS}")
    if num_train % len(classes) or num_validation % len(classes):
        raise ValueError(f"num_train={num_train}, num_validation={num_validation}: not multiples of {len(classes)}")
    if directory.exists():
        raise FileExistsError(f"{directory} exists: remove it, or generate into another directory")
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=f".{directory.name}.") as temporary:
        shares = []
        for index, (split, videos) in enumerate({"train": num_train, "validation": num_validation}.items()):
            for kind in classes:
                (Path(temporary) / "videos" / split / kind).mkdir(parents=True)
            scenes = range(videos // 2)
            shares += [
                _Share(Path(temporary) / "videos" / split, (seed, index), scenes[start : start + 16], pairs)
                for start in scenes[::16]
            ]
        with closing(workers.run(_write_share, shares, num_workers or os.cpu_count() or 1, time_limit=300)) as results:
            for _, _, error in results:
                if error:
                    raise RuntimeError(f"rendering failed: {type(error).__name__}: {error}") from error
        (Path(temporary) / "videos").rename(directory)
