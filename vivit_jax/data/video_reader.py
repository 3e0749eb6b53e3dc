"""Clips of any video file without an ingest, as an ingested one would give them: its frames counted, then read."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vivit_jax.architecture import Preprocessing
from vivit_jax.data import sampling
from vivit_jax.data.clips import TIME_LIMIT
from vivit_jax.data.decode import picture_graph
from vivit_jax.data.transcode import resized, stored_size
from vivit_jax.data.video_files import Counted, Facts, TranscodeError, opened, part_of, probe
from vivit_jax.data.workers import Isolated
from vivit_jax.errors import UserError

STORED_SIDE = 256  # pixels of the short side that videos are reduced to first, as in ingest
FRAMES_AT_ONCE = 64  # that are asked for, and so take `time_limit` at most
DEFAULT_WINDOW = 10.0  # seconds, where a clip has no length of its own


@dataclass(frozen=True)
class Views:
    """What is seen of a video, or of each of its windows, and averaged."""

    clips: int = 1  # spread over it
    crops: int = 1  # of each, spread over the long side
    average: Literal["probabilities", "logits"] = "probabilities"
    window_seconds: float | None = None  # None: the video is one; 0: as long as a clip of the model
    stride_seconds: float = 0.0  # from the start of one window to that of the next; 0: half of one
    starts: str = "even"  # where clips begin, as of `sampling.clip_starts`

    def __post_init__(self):
        if self.clips < 1 or self.crops < 1:
            raise UserError(f"clips {self.clips}, crops {self.crops}: at least 1 of each is needed")
        if self.average not in ("probabilities", "logits"):
            raise UserError(f"average: {self.average!r} is none of 'probabilities', 'logits'")
        if not all(0 <= seconds < float("inf") for seconds in (self.window_seconds or 0, self.stride_seconds)):
            raise UserError("window_seconds and stride_seconds must be finite, and not negative")


def spans(facts: Facts, feeding: Preprocessing, views: Views) -> list[tuple[int, int]]:
    """First frame and number of frames of each window, the last of which ends with the video.

    Raises:
      UserError: a clip of the model does not fit into the windows.
    """
    if views.window_seconds is None:
        return [(0, facts.num_frames)]
    size = round(views.window_seconds * facts.fps)
    if feeding.sampling in ("strided", "span"):
        stride = sampling.frames_apart(feeding.stride, feeding.target_fps, facts.fps)
        clip = int(sampling.clip_offsets(feeding.num_frames, stride, feeding.sampling)[-1]) + 1
        if 0 < size < clip:
            raise UserError(
                f"windows of {views.window_seconds:g} s are shorter than a clip of the model, which takes "
                f"{clip / facts.fps:.2f} s at {facts.fps:g} frames per second"
            )
        size = size or clip
    size = min(max(size or round(DEFAULT_WINDOW * facts.fps), 1), facts.num_frames)
    step = max(round(views.stride_seconds * facts.fps) or size // 2, 1)
    starts = [*range(0, facts.num_frames - size, step), facts.num_frames - size]
    return [(start, size) for start in starts]


def clips_of(span: tuple[int, int], facts: Facts, feeding: Preprocessing, views: Views) -> list[np.ndarray]:
    """Frame numbers of the clips of a window, spread over it: int [num_frames] each."""
    stride = sampling.frames_apart(feeding.stride, feeding.target_fps, facts.fps)
    how = stride, feeding.sampling, feeding.short_clips, views.clips, views.starts
    return [span[0] + frames for frames in sampling.even_clips(span[1], feeding.num_frames, *how)]


@dataclass(frozen=True)
class _Pictures:
    """Frames of a video, by their rising numbers, and what is wanted of them."""

    path: str
    first: bool  # whether the file is opened for them, or goes on from the last ones
    numbers: tuple[int, ...]
    stored: tuple[int, int]  # width and height before the crops
    boxes: tuple[sampling.Box, ...]
    size: tuple[int, int]  # height and width of the crops


class _Sweep:
    """A file's frames in order, numbered by those that really decode; it goes on where it stopped."""

    def __init__(self, path: str):
        self.next, self._frames = 0, _decoded(path)

    def pick(self, numbers: Sequence[int]) -> Iterator[Any]:
        wanted = iter(numbers)
        number = next(wanted, None)
        while number is not None:
            frame = next(self._frames, None)
            if frame is None:
                raise TranscodeError("a frame is missing")
            if self.next == number:
                yield frame
                number = next(wanted, None)
            self.next += 1


def _decoded(path: str) -> Iterator[Any]:
    with opened(path) as (source, stream):
        yield from Counted(part_of(source, stream, None))


_sweep: _Sweep | None = None  # of the decoding process


def _pictures(wanted: _Pictures) -> np.ndarray:
    """In the decoding process: uint8 RGB [frames, crops, h, w, 3]."""
    global _sweep
    if wanted.first or _sweep is None:
        _sweep = _Sweep(wanted.path)
    out = np.empty((len(wanted.numbers), len(wanted.boxes), *wanted.size, 3), np.uint8)
    graphs: list[Any] = []
    for index, frame in enumerate(resized(_sweep.pick(wanted.numbers), wanted.stored, "yuv420p")):
        graphs = graphs or [picture_graph(frame, wanted.size, box) for box in wanted.boxes]
        for graph, target in zip(graphs, out[index], strict=True):
            frame.pts, frame.time_base = index, Fraction(1, 1000)
            graph.push(frame)
            target[:] = graph.pull().to_ndarray()
    return out


def _call(question: tuple[Callable[[Any], Any], Any]) -> Any:
    function, argument = question
    return function(argument)


class VideoReader:
    """Reads video files in a process of its own, which may crash, hang or run out of memory on any of them."""

    def __init__(self, time_limit: float = TIME_LIMIT):
        """`time_limit` in seconds, to count the frames of a video, and to decode as far as the next 64 wanted."""
        self._isolated = Isolated(_call, time_limit)

    def start(self) -> None:
        """Starts the process, which the first question does otherwise."""
        self._isolated.start()

    def close(self) -> None:
        self._isolated.close()

    def __enter__(self) -> "VideoReader":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def facts(self, path: str) -> Facts:
        """What a file really holds, all of it decoded.

        Raises:
          UserError: it is no usable video; the message says why.
        """
        if not Path(path).is_file():
            raise UserError(f"{path}: there is no such file")
        return self._ask(path, probe, path)

    def clips(
        self, path: str, facts: Facts, feeding: Preprocessing, clips: Sequence[np.ndarray], crops: int = 1
    ) -> Iterator[np.ndarray]:
        """Clips by their frame numbers, each uint8 [crops, T, h, w, 3]; every frame is decoded and kept once.

        Raises:
          UserError: as `facts`.
        """
        height, width = feeding.image_size
        resize = feeding.resize or min(feeding.image_size)
        stored = stored_size(facts.width, facts.height, max(STORED_SIDE, resize))
        boxes = tuple(sampling.view_boxes(stored[1], stored[0], resize, (height, width), crops))
        numbers = np.unique(np.concatenate(clips))
        last_use = {int(number): index for index, frames in enumerate(clips) for number in frames}
        blocks = iter(range(0, len(numbers), FRAMES_AT_ONCE))
        kept: dict[int, np.ndarray] = {}
        for index, frames in enumerate(clips):
            while any(int(number) not in kept for number in frames):
                start = next(blocks)
                block = tuple(map(int, numbers[start : start + FRAMES_AT_ONCE]))
                wanted = _Pictures(path, start == 0, block, stored, boxes, (height, width))
                kept |= zip(block, self._ask(path, _pictures, wanted), strict=True)
            yield np.stack([kept[int(number)] for number in frames], axis=1)
            kept = {number: x for number, x in kept.items() if last_use[number] > index}

    def _ask(self, path: str, function: Callable[[Any], Any], argument: Any) -> Any:
        result, error = self._isolated((function, argument))
        if isinstance(error, TranscodeError | OSError):  # of the system, of time, or the end of the process
            raise UserError(f"{path}: {getattr(error, 'strerror', None) or error}")
        if isinstance(error, MemoryError):
            raise UserError(f"{path}: takes too much memory")
        if error is not None:
            raise error
        return result
