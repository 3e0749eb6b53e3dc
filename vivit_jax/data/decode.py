"""Frames of an ingested video by their numbers, cropped and resized on the way."""

import io
from pathlib import Path

import av
import av.error
import av.filter
import numpy as np


class DecodeError(ValueError):
    """A frame is not there."""


def decode(
    video: bytes | str | Path,
    indices: np.ndarray,
    *,
    size: tuple[int, int] | None = None,
    box: tuple[float, float, float, float] | None = None,
) -> np.ndarray:
    """Decodes some frames, from the key frame before the first of them and no further than the last.

    Args:
      video: an ingested video (constant frame rate, frame i is the i-th), or its path.
      indices: int, frame numbers in any order, with repeats.
      size: height and width of the result, in pixels; those of the box by default.
      box: top, left, height and width of what is kept, in pixels of the stored frame; the whole frame by default.
    Returns:
      uint8 RGB [len(indices), height, width, 3].
    Raises:
      DecodeError: a frame is missing, or the bytes are no video.
    """
    wanted = np.unique(indices)
    try:
        with av.open(io.BytesIO(video) if isinstance(video, bytes) else str(video)) as container:
            kept = _decode(container, wanted, size, box)
    except av.error.FFmpegError as error:
        raise DecodeError(f"does not decode: {error.strerror or error}") from error
    if missing := [int(i) for i in wanted if int(i) not in kept]:
        raise DecodeError(f"frame {missing[0]} is missing")
    return np.stack([kept[int(i)] for i in indices])


def _decode(container, wanted: np.ndarray, size, box) -> dict[int, np.ndarray]:
    stream = container.streams.video[0]
    stream.thread_type, stream.codec_context.thread_count = "NONE", 1
    ticks = stream.duration / stream.frames  # per frame, in the stream's time base
    container.seek(int(wanted[0] * ticks), stream=stream, backward=True)
    chosen, kept, graph = set(wanted.tolist()), {}, None
    for frame in container.decode(stream):
        number = round(frame.pts / ticks)
        if number in chosen:
            graph = graph or _graph(frame, stream.time_base, size, box)
            graph.push(frame)
            kept[number] = graph.pull().to_ndarray()
        if number >= wanted[-1]:
            break
    return kept


def _graph(frame, time_base, size, box):
    """Crop, resize and conversion to RGB in one pass of libswscale."""
    graph = av.filter.Graph()
    nodes = [graph.add_buffer(width=frame.width, height=frame.height, format=frame.format.name, time_base=time_base)]
    top, left, height, width = box or (0, 0, frame.height, frame.width)
    if box:
        whole = [round(x) for x in (width, height, left, top)]
        nodes.append(graph.add("crop", ":".join(map(str, whole)) + ":exact=1"))
    height, width = size or (round(height), round(width))
    nodes.append(graph.add("scale", f"{width}:{height}:flags=bilinear"))
    nodes += [graph.add("format", "rgb24"), graph.add("buffersink")]
    graph.link_nodes(*nodes).configure()
    return graph
