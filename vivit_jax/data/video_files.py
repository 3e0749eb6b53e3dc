"""Video files as people have them, read within limits: containers' own counts and times are not believed."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import av
import av.error

MAX_SIDE = 8192  # pixels
MAX_FRAMES = 2_000_000  # 18 hours at 30 frames per second

Seconds = tuple[float, float] | None


class TranscodeError(ValueError):
    """Why a file is no usable video, in a few words."""


@dataclass(frozen=True)
class Facts:
    """What a file really holds."""

    num_frames: int
    fps: float
    height: int
    width: int


def probe(path: str | Path, seconds: Seconds = None) -> Facts:
    """Decodes a video and keeps nothing of it. Raises as `transcode` does."""
    with opened(path) as (source, stream):
        frames = Counted(part_of(source, stream, seconds))
        first, rest = peek(iter(frames))
        for _ in rest:
            continue
        check_count(source, stream, frames.count, seconds)
        width, height = upright_size(first)
        return Facts(frames.count, float(frame_rate(stream)), height, width)


@contextmanager
def opened(path: str | Path) -> Iterator[tuple[Any, Any]]:
    try:
        with av.open(str(path), metadata_errors="ignore") as source:
            if not source.streams.video:
                raise TranscodeError("no video stream")
            stream = source.streams.video[0]
            if stream.codec_context is None:
                raise TranscodeError("its codec is not known")
            _check_size(stream.codec_context)
            stream.thread_type, stream.codec_context.thread_count = "NONE", 1
            yield source, stream
    except TranscodeError:
        raise
    except (av.error.FFmpegError, MemoryError, ArithmeticError, ValueError) as error:  # of numbers beyond all bounds
        raise TranscodeError(
            f"does not decode: {getattr(error, 'strerror', None) or error or 'out of memory'}"
        ) from error


def frame_rate(stream) -> Fraction:
    rate = stream.average_rate or stream.guessed_rate or 0
    return Fraction(rate).limit_denominator(1001) if 1 <= rate <= 1000 else Fraction(25)


class Counted:
    """Frames that pass by, within the limits."""

    def __init__(self, frames: Iterator):
        self.frames, self.count = frames, 0

    def __iter__(self) -> Iterator:
        for frame in self.frames:
            _check_size(frame)
            self.count += 1
            if self.count > MAX_FRAMES:
                raise TranscodeError(f"more than {MAX_FRAMES} frames")
            yield frame


def part_of(source, stream, seconds: Seconds) -> Iterator:
    """The frames of a file, or of a part of it, from the key frame before it on."""
    if seconds is None:
        yield from source.decode(stream)
        return
    offset = stream.start_time or 0
    source.seek(int(seconds[0] / stream.time_base) + offset, stream=stream, backward=True)
    for frame in source.decode(stream):
        if frame.pts is None:
            raise TranscodeError("its frames have no times, so no part of it can be taken")
        time = float((frame.pts - offset) * stream.time_base)
        if time >= seconds[1]:
            return
        if time >= seconds[0]:
            yield frame


def peek(frames: Iterator) -> tuple[Any, Iterator]:
    first = next(frames, None)
    if first is None:
        raise TranscodeError("no frame decodes")
    return first, chain([first], frames)


def _check_size(picture) -> None:
    if max(picture.height, picture.width) > MAX_SIDE:
        raise TranscodeError(f"more than {MAX_SIDE} pixels wide or high")


def upright_size(frame) -> tuple[int, int]:
    """Width and height."""
    return (frame.height, frame.width) if frame.rotation % 180 else (frame.width, frame.height)


def check_count(source, stream, count: int, seconds: Seconds) -> None:
    if count == 1:
        raise TranscodeError("a single frame")
    # MP4 and QuickTime list their frames, and so tell a truncated file; AVI and Matroska guess.
    whole = seconds is None and "mp4" in source.format.name
    if whole and stream.frames - count > max(2, 0.05 * stream.frames):
        raise TranscodeError(f"truncated: {count} of {stream.frames} frames decode")
