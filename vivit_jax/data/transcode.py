"""One video file of any kind -> a clip in which every frame can be addressed by its number, within limits."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import av
import av.error
import av.filter
import av.video.frame
import numpy as np
import simplejpeg

KEY_FRAME_EVERY = 32
MAX_SIDE = 8192  # pixels
MAX_FRAMES = 2_000_000  # 18 hours at 30 frames per second
MAX_BYTES = 1 << 30  # of a clip, as it is stored
# Without the macroblock tree, with which x264 gives other bytes from one time to the next (seen in 4 of 100 runs).
CODEC = {"crf": "18", "preset": "veryfast", "bf": "0", "sc_threshold": "0", "mbtree": "0"}
JPEG_QUALITY = 90

Seconds = tuple[float, float] | None
Storage = Literal["h264", "jpeg"]


class TranscodeError(ValueError):
    """Why a file is no usable video, in a few words."""


@dataclass(frozen=True)
class Clip:
    """A re-encoded video of constant frame rate: H.264 with frame i at time i / fps, or JPEG frames end to end."""

    video: bytes
    num_frames: int
    fps: float
    height: int
    width: int
    frame_sizes: tuple[int, ...] = ()  # bytes of each JPEG frame; of H.264 there are none


@dataclass(frozen=True)
class Facts:
    """What a file really holds."""

    num_frames: int
    fps: float
    height: int
    width: int


def transcode(path: str | Path, short_side: int, storage: Storage = "h264", seconds: Seconds = None) -> Clip:
    """Re-encodes a video, counting the frames that decode: containers' own counts and times are not believed.

    Args:
      short_side: pixels that the shorter side is reduced to; a smaller video keeps its size.
      seconds: where the part that is wanted starts and stops; the whole file by default.
    Raises:
      TranscodeError: the file is not a video, is damaged, has a single frame, or is beyond the limits.
      OSError: it cannot be read.
    """
    with _opened(path) as (source, stream):
        rate, frames = _rate(stream), _Counted(_part(source, stream, seconds))
        make = {"h264": _h264, "jpeg": _jpeg}[storage]
        first, resized = _peek(_resized(iter(frames), short_side, {"h264": "yuv420p", "jpeg": "rgb24"}[storage]))
        video, sizes = make(resized, rate, first)
        _check_count(source, stream, frames.count, seconds)
    return Clip(video, frames.count, float(rate), first.height, first.width, sizes)


def probe(path: str | Path, seconds: Seconds = None) -> Facts:
    """Decodes a video and keeps nothing of it. Raises as `transcode` does."""
    with _opened(path) as (source, stream):
        frames = _Counted(_part(source, stream, seconds))
        first, rest = _peek(iter(frames))
        for _ in rest:
            continue
        _check_count(source, stream, frames.count, seconds)
        width, height = _upright(first)
        return Facts(frames.count, float(_rate(stream)), height, width)


@contextmanager
def _opened(path: str | Path) -> Iterator[tuple[Any, Any]]:
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


def _rate(stream) -> Fraction:
    rate = stream.average_rate or stream.guessed_rate or 0
    return Fraction(rate).limit_denominator(1001) if 1 <= rate <= 1000 else Fraction(25)


class _Counted:
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


def _part(source, stream, seconds: Seconds) -> Iterator:
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


def _peek(frames: Iterator) -> tuple[Any, Iterator]:
    first = next(frames, None)
    if first is None:
        raise TranscodeError("no frame decodes")
    return first, chain([first], frames)


def _h264(frames: Iterator, rate: Fraction, first) -> tuple[bytes, tuple[int, ...]]:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as output:
        encoder = output.add_stream("libx264", rate=rate, options=CODEC)
        encoder.width, encoder.height, encoder.pix_fmt = first.width, first.height, "yuv420p"
        encoder.codec_context.time_base, encoder.codec_context.gop_size = 1 / rate, KEY_FRAME_EVERY
        encoder.codec_context.thread_count = 1
        encoder.codec_context.colorspace, encoder.codec_context.color_range = first.colorspace, first.color_range
        for index, frame in enumerate(frames):
            frame.pts, frame.time_base, frame.pict_type = index, 1 / rate, av.video.frame.PictureType.NONE
            output.mux(encoder.encode(frame))
            _check_bytes(buffer.tell())
        output.mux(encoder.encode(None))
    return buffer.getvalue(), ()


def _jpeg(frames: Iterator, rate: Fraction, first) -> tuple[bytes, tuple[int, ...]]:
    del rate, first
    pictures, total = [], 0
    for frame in frames:
        pixels = np.ascontiguousarray(frame.to_ndarray())
        pictures.append(simplejpeg.encode_jpeg(pixels, JPEG_QUALITY, colorsubsampling="420"))
        total += len(pictures[-1])
        _check_bytes(total)
    return b"".join(pictures), tuple(map(len, pictures))


def _check_bytes(size: int) -> None:
    if size > MAX_BYTES:
        raise TranscodeError(f"more than {MAX_BYTES >> 20} MiB, re-encoded")


def _resized(frames: Iterator, short_side: int, pixel_format: str) -> Iterator:
    """Frames upright, in one size with even sides."""
    graph: Any = None
    shape, size = None, None
    for frame in frames:
        if (frame.width, frame.height, frame.format.name) != shape:  # it may change on the way
            shape = frame.width, frame.height, frame.format.name
            size = size or _target(frame, short_side)
            graph = _graph(frame, size, pixel_format)
        frame.pts = None
        graph.push(frame)
        yield graph.pull()


def _check_size(picture) -> None:
    if max(picture.height, picture.width) > MAX_SIDE:
        raise TranscodeError(f"more than {MAX_SIDE} pixels wide or high")


def _upright(frame) -> tuple[int, int]:
    """Width and height."""
    return (frame.height, frame.width) if frame.rotation % 180 else (frame.width, frame.height)


def _target(frame, short_side: int) -> tuple[int, int]:
    width, height = _upright(frame)
    scale = min(1.0, short_side / min(width, height))
    if min(width, height) < 2:
        raise TranscodeError(f"{width} x {height} pixels")
    width, height = (max(2, int(np.round(side * scale / 2)) * 2) for side in (width, height))
    return width, height


def _graph(frame, size: tuple[int, int], pixel_format: str):
    graph = av.filter.Graph()
    nodes = [
        graph.add_buffer(width=frame.width, height=frame.height, format=frame.format.name, time_base=Fraction(1, 1000))
    ]
    turns = {90: ["2"], 180: ["1", "1"], 270: ["1"]}.get(round(frame.rotation) % 360, [])
    nodes += [graph.add("transpose", direction) for direction in turns]
    nodes.append(graph.add("scale", f"{size[0]}:{size[1]}:flags=bicubic"))
    nodes += [graph.add("format", pixel_format), graph.add("buffersink")]
    graph.link_nodes(*nodes).configure()
    return graph


def _check_count(source, stream, count: int, seconds: Seconds) -> None:
    if count == 1:
        raise TranscodeError("a single frame")
    # MP4 and QuickTime list their frames, and so tell a truncated file; AVI and Matroska guess.
    whole = seconds is None and "mp4" in source.format.name
    if whole and stream.frames - count > max(2, 0.05 * stream.frames):
        raise TranscodeError(f"truncated: {count} of {stream.frames} frames decode")
