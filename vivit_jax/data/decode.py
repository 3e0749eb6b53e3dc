"""Frames of an ingested video by their numbers, cropped and resized on the way."""

import io
import time
from collections.abc import Collection, Iterator, Sequence
from fractions import Fraction
from itertools import accumulate
from pathlib import Path
from typing import Any

import av
import av.error
import av.filter
import numpy as np

from vivit_jax.data.sampling import Box
from vivit_jax.data.video_files import MAX_SIDE

TIME_LIMIT = 60.0  # seconds for the frames of one clip


# Why frames cannot be had, by the name under which a run counts them.
FAULTS = {
    "unreadable": "its record cannot be read",
    "undecodable": "does not decode",
    "missing_frame": "a frame is missing",
    "too_slow": f"takes more than {TIME_LIMIT:g} seconds",
    "too_large": f"has more than {MAX_SIDE} pixels in a row or column",
}


# What else comes of bytes that are no video: no stream, codec, duration or count, or numbers beyond all bounds.
_NONSENSE = (LookupError, TypeError, AttributeError, ArithmeticError, ValueError, MemoryError)


class DecodeError(ValueError):
    """Frames cannot be had; `fault` is one of FAULTS."""

    def __init__(self, fault: str):
        super().__init__(FAULTS[fault])
        self.fault = fault


def decode_crops(
    video: bytes | str | Path,
    indices: np.ndarray,
    boxes: Sequence[Box | None],
    *,
    size: tuple[int, int] | None,
    frame_sizes: Sequence[int] = (),
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Decodes some frames once, from the key frame before the first of them and no further than the last.

    Args:
      video: an ingested video (constant frame rate, frame i is the i-th), or its path.
      indices: int, frame numbers in any order, with repeats.
      boxes: top, left, height and width of what is kept, in pixels of the stored frame; None for the whole frame.
      size: height and width of the result, in pixels; of one box they may be None, for its own.
      frame_sizes: bytes of each frame, where `video` is JPEG frames end to end.
      out: where to write the result; new memory by default.
    Returns:
      uint8 RGB [len(boxes), len(indices), height, width, 3].
    Raises:
      DecodeError: a frame is missing, the bytes are no video, or a limit is passed.
    """
    wanted = np.unique(indices)
    frames = _jpeg_frames(video, wanted, frame_sizes) if frame_sizes else _video_frames(video, wanted)
    places = {int(number): np.flatnonzero(indices == number) for number in wanted}
    try:
        for number, crops in _crops(frames, places, size, boxes):
            out = np.empty((len(boxes), len(indices), *crops[0].shape), np.uint8) if out is None else out
            for place in places.pop(number):
                for clip, pixels in zip(out, crops, strict=True):
                    clip[place] = pixels
    except DecodeError:
        raise
    except (av.error.FFmpegError, *_NONSENSE) as error:
        raise DecodeError("undecodable") from error
    if places or out is None:
        raise DecodeError("missing_frame")
    return out


def _video_frames(video: bytes | str | Path, wanted: np.ndarray) -> Iterator[tuple[int, Any]]:
    """Numbered frames, from the key frame before the first that is wanted."""
    with av.open(io.BytesIO(video) if isinstance(video, bytes) else str(video)) as container:
        source: Any = container
        stream = source.streams.video[0]
        stream.thread_type, stream.codec_context.thread_count = "NONE", 1
        ticks = stream.duration / stream.frames  # per frame, in the stream's time base
        source.seek(int(wanted[0] * ticks), stream=stream, backward=True)
        yield from ((round(frame.pts / ticks), frame) for frame in source.decode(stream))


def _jpeg_frames(
    video: bytes | str | Path, wanted: np.ndarray, frame_sizes: Sequence[int]
) -> Iterator[tuple[int, Any]]:
    """Those that are wanted alone. They stay in YUV until they are small, which libjpeg's own way to RGB does not."""
    data: Any = memoryview(video if isinstance(video, bytes) else Path(video).read_bytes())
    codec: Any = av.CodecContext.create("mjpeg", "r")
    codec.thread_count, ends = 1, list(accumulate(frame_sizes))
    for number in wanted[(wanted >= 0) & (wanted < len(ends))].tolist():
        (frame,) = codec.decode(av.Packet(data[ends[number] - frame_sizes[number] : ends[number]]))
        yield number, frame


def _crops(
    frames: Iterator[tuple[int, Any]], wanted: Collection[int], size, boxes: Sequence[Box | None]
) -> Iterator[tuple[int, list[np.ndarray]]]:
    """Of numbered frames those that are (still) wanted, cropped and resized, and none after the last of them."""
    graphs, deadline = [], time.monotonic() + TIME_LIMIT
    for number, frame in frames:
        if time.monotonic() > deadline:
            raise DecodeError("too_slow")
        if number in wanted:
            graphs = graphs or [picture_graph(frame, size, box) for box in boxes]
            frame.pts, frame.time_base = number, Fraction(1, 1000)
            for graph in graphs:
                graph.push(frame)
            yield number, [graph.pull().to_ndarray() for graph in graphs]
        if not wanted:
            return


def picture_graph(frame, size, box) -> Any:
    """Crop and resize in YUV, and only then convert: faster in libswscale than both at once."""
    if max(frame.height, frame.width) > MAX_SIDE:
        raise DecodeError("too_large")
    graph = av.filter.Graph()
    shape = dict(width=frame.width, height=frame.height, format=frame.format.name)
    nodes = [graph.add_buffer(**shape, time_base=Fraction(1, 1000))]
    top, left, height, width = box or (0, 0, frame.height, frame.width)
    if box:
        whole = [round(x) for x in (width, height, left, top)]
        nodes.append(graph.add("crop", ":".join(map(str, whole)) + ":exact=1"))
    height, width = size or (round(height), round(width))
    planar = "yuvj422p" if frame.format.name == "yuvj420p" else "yuv422p"  # more of the color than 4:2:0 at that size
    nodes += [graph.add("scale", f"{width}:{height}:flags=bilinear"), graph.add("format", planar)]
    nodes += [graph.add("scale", "flags=bilinear"), graph.add("format", "rgb24"), graph.add("buffersink")]
    graph.link_nodes(*nodes).configure()
    return graph
