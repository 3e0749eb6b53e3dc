"""Which frames and which pixels of a video are seen: pure index arithmetic."""

import numpy as np

Box = tuple[float, float, float, float]  # top, left, height, width, in pixels of the stored frame


def clip_offsets(num_frames: int, stride: float, rule: str = "strided") -> np.ndarray:
    """Frames of a clip relative to its first: int [num_frames].

    `strided`: `stride` source frames apart (ViViT). `span`: spread over num_frames * stride frames, both ends included
    (as the released TimeSformer does: 8 frames at stride 32 are 0, 36, 72, ... 255).
    """
    if rule == "span":
        return np.floor(np.linspace(0, max(num_frames * stride - 1, 0), num_frames)).astype(np.int64)
    return np.floor(np.arange(num_frames) * stride).astype(np.int64)


def frames_apart(stride: float, target_fps: float, fps: float) -> float:
    """From one frame of a clip to the next, in a video of that rate; a stride of 0 is as `target_fps` says."""
    return stride or max(fps / target_fps, 1e-6)


def segment_bounds(total: int, num_frames: int) -> tuple[np.ndarray, np.ndarray]:
    """First and last frame of each of `num_frames` equal parts of a video (TSN; the released TimeSformer's on SSv2)."""
    edges = np.round(np.arange(num_frames + 1) * (total - 1) / num_frames).astype(np.int64)
    return edges[:-1], edges[1:]


def random_clip(
    total: int, num_frames: int, stride: float, rule: str, short_clips: str, rng: np.random.Generator
) -> np.ndarray:
    """Frame numbers of a training clip: int [num_frames].

    Args:
      total: frames of the video.
      rule: `strided` or `span`, from a random start; `segments`, one at random of each part; `whole`, the video evenly.
      short_clips: see `frames`.
    """
    if rule == "segments":
        first, last = segment_bounds(total, num_frames)
        return rng.integers(first, last, endpoint=True)
    if rule == "whole":
        return even_clips(total, num_frames, stride, rule, short_clips, 1)[0]
    offsets = clip_offsets(num_frames, stride, rule)
    return frames(random_start(total, offsets, rng), offsets, total, short_clips)


def even_clips(
    total: int, num_frames: int, stride: float, rule: str, short_clips: str, clips: int, starts: str = "even"
) -> list[np.ndarray]:
    """Frame numbers of evaluation clips, spread as `starts` says; of `segments` their middles, if one; of `whole` one.

    Args:
      total, num_frames, stride, rule, short_clips: as of `random_clip`.
      starts: "even", "vivit_release" or "timesformer_release".
    """
    if rule == "segments":
        first, last = segment_bounds(total, num_frames)
        return [first + (last - first) * (2 * clip + 1) // (2 * clips) for clip in range(clips)]
    if rule == "whole":
        return [np.floor(np.linspace(0, total - 1, num_frames)).astype(np.int64)]
    offsets = clip_offsets(num_frames, stride, rule)
    firsts = clip_starts(total, offsets, clips, starts, stride)
    return [frames(int(start), offsets, total, short_clips) for start in firsts]


def clip_starts(total: int, offsets: np.ndarray, clips: int, starts: str = "even", stride: float = 1.0) -> np.ndarray:
    """First frames of `clips` clips spread over a video of `total` frames.

    `even`: from end to end; a single one is the middle (both papers). `vivit_release` rounds down, and counts the
    frames up to where a clip's next one would be to its length. `timesformer_release`: at k / clips of the room, so
    that a single clip is the start of the video, and none is its end.
    """
    room = max(total - int(offsets[-1]) - (stride if starts == "vivit_release" else 1), 0)
    if starts == "timesformer_release":
        return np.floor(np.arange(clips) * room / clips).astype(np.int64)
    if clips == 1:
        return np.array([int(room // 2)])
    spread = np.linspace(0, room, clips)
    return (np.round(spread) if starts == "even" else np.floor(spread)).astype(np.int64)


def random_start(total: int, offsets: np.ndarray, rng: np.random.Generator) -> int:
    """A first frame, uniform over those from which the clip fits; 0 where it never does."""
    return int(rng.integers(max(total - int(offsets[-1]) - 1, 0) + 1))


def frames(start: int, offsets: np.ndarray, total: int, short_clips: str) -> np.ndarray:
    """Frame numbers of a clip; past the end of the video they start over (`loop`) or stay on the last (`hold`)."""
    indices = start + offsets
    return indices % total if short_clips == "loop" else np.minimum(indices, total - 1)


def random_box(
    height: int, width: int, area: tuple[float, float], aspect: tuple[float, float], rng: np.random.Generator
) -> Box:
    """A random-resized-crop (Inception): a part of the area at a log-uniform aspect ratio (width / height)."""
    for _ in range(10):
        pixels = height * width * rng.uniform(*area)
        ratio = np.exp(rng.uniform(*np.log(aspect)))
        h, w = np.sqrt(pixels / ratio), np.sqrt(pixels * ratio)
        if h <= height and w <= width:
            return float(rng.uniform(0, height - h)), float(rng.uniform(0, width - w)), float(h), float(w)
    # Ten tries miss only pictures far from square: the largest crop within the aspect ratios, in the center.
    w, h = min(width, height * aspect[1]), min(height, width / aspect[0])
    return (height - h) / 2, (width - w) / 2, float(h), float(w)


def jittered_box(
    height: int,
    width: int,
    size: tuple[int, int],
    short_sides: tuple[float, float],
    rng: np.random.Generator,
    apart: bool = False,
) -> Box:
    """A crop of `size` (height, width) of the picture resized to a random short side, in pixels of the picture; with
    `apart` height and width are resized each by a scale of its own, as ViViT's release does."""
    scale = min(height, width) / rng.uniform(*short_sides)
    across = min(height, width) / rng.uniform(*short_sides) if apart else scale
    h, w = _largest(size[0] * scale, size[1] * across, height, width)
    return float(rng.uniform(0, height - h)), float(rng.uniform(0, width - w)), h, w


def _largest(h: float, w: float, height: int, width: int) -> tuple[float, float]:
    """A crop that is wider or higher than the picture: the largest of its shape that fits."""
    fitting = min(1.0, height / h, width / w)
    return h * fitting, w * fitting


def view_boxes(height: int, width: int, resize: int, size: tuple[int, int], crops: int) -> list[Box]:
    """Evaluation crops of `size` (height, width) after resizing the short side to `resize` pixels.

    One is the center; several are spread along the longer room, the first and the last at its ends.
    """
    scale = min(height, width) / resize
    h, w = _largest(size[0] * scale, size[1] * scale, height, width)
    room_y, room_x = height - h, width - w
    parts = np.linspace(0, 1, crops) if crops > 1 else [0.5]
    along_x = room_x >= room_y
    return [
        (float(room_y * (0.5 if along_x else part)), float(room_x * (part if along_x else 0.5)), float(h), float(w))
        for part in parts
    ]
