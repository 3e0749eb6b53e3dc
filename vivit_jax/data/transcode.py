"""One video file of any kind -> a clip in which every frame can be addressed by its number."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import av.filter
import av.video.frame
import numpy as np
import simplejpeg

from vivit_jax.data.video_files import (
    Counted,
    Seconds,
    TranscodeError,
    check_count,
    frame_rate,
    opened,
    part_of,
    peek,
    upright_size,
)

KEY_FRAME_EVERY = 32
MAX_BYTES = 1 << 30  # of a clip, as it is stored
# Without the macroblock tree, with which x264 gives other bytes now and then.
CODEC = {"crf": "18", "preset": "veryfast", "bf": "0", "sc_threshold": "0", "mbtree": "0"}
JPEG_QUALITY = 90

Storage = Literal["h264", "jpeg"]


@dataclass(frozen=True)
class Clip:
    """A re-encoded video of constant frame rate: H.264 with frame i at time i / fps, or JPEG frames end to end."""

    video: bytes
    num_frames: int
    fps: float
    height: int
    width: int
    frame_sizes: tuple[int, ...] = ()  # bytes of each JPEG frame; of H.264 there are none


def transcode(path: str | Path, short_side: int, storage: Storage = "h264", seconds: Seconds = None) -> Clip:
    """Re-encodes a video, counting the frames that decode: containers' own counts and times are not believed.

    Args:
      short_side: pixels that the shorter side is reduced to; a smaller video keeps its size.
      seconds: where the part that is wanted starts and stops; the whole file by default.
    Raises:
      TranscodeError: the file is not a video, is damaged, has a single frame, or is beyond the limits.
      OSError: it cannot be read.
    """
    with opened(path) as (source, stream):
        rate, frames = frame_rate(stream), Counted(part_of(source, stream, seconds))
        make = {"h264": _h264, "jpeg": _jpeg}[storage]
        first, rest = peek(iter(frames))
        size = stored_size(*upright_size(first), short_side)
        first, pictures = peek(resized(rest, size, {"h264": "yuv420p", "jpeg": "rgb24"}[storage]))
        video, sizes = make(pictures, rate, first)
        check_count(source, stream, frames.count, seconds)
    return Clip(video, frames.count, float(rate), first.height, first.width, sizes)


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


def resized(frames: Iterator, size: tuple[int, int], pixel_format: str) -> Iterator:
    """Frames upright, in one size: width and height."""
    graph: Any = None
    shape = None
    for frame in frames:
        if (frame.width, frame.height, frame.format.name) != shape:  # it may change on the way
            shape = frame.width, frame.height, frame.format.name
            graph = _graph(frame, size, pixel_format)
        frame.pts = None
        graph.push(frame)
        yield graph.pull()


def stored_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Width and height, even, with the shorter side reduced to `short_side` pixels."""
    scale = min(1.0, short_side / min(width, height))
    if min(width, height) < 2:
        raise TranscodeError(f"{width} x {height} pixels")
    return max(2, int(np.round(width * scale / 2)) * 2), max(2, int(np.round(height * scale / 2)) * 2)


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
