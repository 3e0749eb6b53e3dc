"""One video file of any kind -> H.264 in which every frame can be addressed by its number."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import av.filter
import av.video.frame
import numpy as np

KEY_FRAME_EVERY = 32
MAX_SIDE = 8192  # pixels
MAX_FRAMES = 2_000_000  # 18 hours at 30 frames per second
CODEC = {"crf": "18", "preset": "veryfast", "bf": "0", "sc_threshold": "0"}


class TranscodeError(ValueError):
    """Why a file is no usable video, in a few words."""


@dataclass(frozen=True)
class Clip:
    """A re-encoded video: constant frame rate, frame i at time i / fps."""

    video: bytes
    num_frames: int
    fps: float
    height: int
    width: int


def transcode(path: str | Path, short_side: int) -> Clip:
    """Re-encodes a video, counting the frames that decode: containers' own counts and times are not believed.

    Args:
      short_side: pixels that the shorter side is reduced to; a smaller video keeps its size.
    Raises:
      TranscodeError: the file is not a video, is damaged, has a single frame, or is beyond the limits.
      OSError: it cannot be read.
    """
    try:
        with av.open(str(path), metadata_errors="ignore") as source:
            return _transcode(source, short_side)
    except av.error.FFmpegError as error:
        raise TranscodeError(f"does not decode: {error.strerror or error}") from error


def _transcode(source, short_side: int) -> Clip:
    if not source.streams.video:
        raise TranscodeError("no video stream")
    stream = source.streams.video[0]
    _check_size(stream.codec_context)
    stream.thread_type, stream.codec_context.thread_count = "NONE", 1
    rate = stream.average_rate or stream.guessed_rate or 0
    rate = Fraction(rate).limit_denominator(1001) if 1 <= rate <= 1000 else Fraction(25)
    buffer, count, encoder = io.BytesIO(), 0, None
    with av.open(buffer, "w", format="mp4") as output:
        for frame in _resized(source.decode(stream), short_side):
            encoder = encoder or _encoder(output, rate, frame)
            frame.pts, frame.time_base, frame.pict_type = count, 1 / rate, av.video.frame.PictureType.NONE
            output.mux(encoder.encode(frame))
            count += 1
            if count > MAX_FRAMES:
                raise TranscodeError(f"more than {MAX_FRAMES} frames")
        if encoder is None:
            raise TranscodeError("no frame decodes")
        output.mux(encoder.encode(None))
    _check_count(source, stream, count)
    return Clip(buffer.getvalue(), count, float(rate), encoder.height, encoder.width)


def _encoder(output, rate: Fraction, frame):
    encoder = output.add_stream("libx264", rate=rate, options=CODEC)
    encoder.width, encoder.height, encoder.pix_fmt = frame.width, frame.height, "yuv420p"
    encoder.codec_context.time_base, encoder.codec_context.gop_size = 1 / rate, KEY_FRAME_EVERY
    encoder.codec_context.thread_count = 1
    encoder.codec_context.colorspace, encoder.codec_context.color_range = frame.colorspace, frame.color_range
    return encoder


def _resized(frames: Iterator, short_side: int) -> Iterator:
    """Frames upright, in one size with even sides, 4:2:0."""
    graph: Any = None
    shape, size = None, None
    for frame in frames:
        if (frame.width, frame.height, frame.format.name) != shape:  # it may change on the way
            _check_size(frame)
            shape = frame.width, frame.height, frame.format.name
            size = size or _target(frame, short_side)
            graph = _graph(frame, size)
        frame.pts = None
        graph.push(frame)
        yield graph.pull()


def _check_size(picture) -> None:
    if max(picture.height, picture.width) > MAX_SIDE:
        raise TranscodeError(f"more than {MAX_SIDE} pixels wide or high")


def _target(frame, short_side: int) -> tuple[int, int]:
    width, height = (frame.height, frame.width) if frame.rotation % 180 else (frame.width, frame.height)
    scale = min(1.0, short_side / min(width, height))
    if min(width, height) < 2:
        raise TranscodeError(f"{width} x {height} pixels")
    width, height = (max(2, int(np.round(side * scale / 2)) * 2) for side in (width, height))
    return width, height


def _graph(frame, size: tuple[int, int]):
    graph = av.filter.Graph()
    nodes = [
        graph.add_buffer(width=frame.width, height=frame.height, format=frame.format.name, time_base=Fraction(1, 1000))
    ]
    turns = {90: ["2"], 180: ["1", "1"], 270: ["1"]}.get(round(frame.rotation) % 360, [])
    nodes += [graph.add("transpose", direction) for direction in turns]
    nodes.append(graph.add("scale", f"{size[0]}:{size[1]}:flags=bicubic"))
    nodes += [graph.add("format", "yuv420p"), graph.add("buffersink")]
    graph.link_nodes(*nodes).configure()
    return graph


def _check_count(source, stream, count: int) -> None:
    if count == 1:
        raise TranscodeError("a single frame")
    # MP4 and QuickTime list their frames, and so tell a truncated file; AVI and Matroska guess.
    if "mp4" in source.format.name and stream.frames - count > max(2, 0.05 * stream.frames):
        raise TranscodeError(f"truncated: {count} of {stream.frames} frames decode")
