"""Which frames and which pixels of a video are seen: pure index arithmetic."""

import numpy as np

Box = tuple[float, float, float, float]  # top, left, height, width, in pixels of the stored frame


def clip_offsets(num_frames: int, stride: float) -> np.ndarray:
    """Frames of a clip relative to its first: int [num_frames], `stride` source frames apart."""
    return np.floor(np.arange(num_frames) * stride).astype(np.int64)


def clip_starts(total: int, offsets: np.ndarray, clips: int) -> np.ndarray:
    """First frames of `clips` clips spread evenly over a video of `total` frames; a single one is the middle."""
    room = max(total - int(offsets[-1]) - 1, 0)
    return np.array([room // 2]) if clips == 1 else np.round(np.linspace(0, room, clips)).astype(np.int64)


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


def view_boxes(height: int, width: int, resize: int, size: tuple[int, int], crops: int) -> list[Box]:
    """Evaluation crops of `size` (height, width) after resizing the short side to `resize` pixels.

    One is the center; several are spread along the longer room, the first and the last at its ends.
    """
    scale = min(height, width) / resize
    h, w = size[0] * scale, size[1] * scale
    if h > height or w > width:  # a crop that is wider than the resized picture: the largest of its shape
        h, w = (x * min(height / h, width / w) for x in (h, w))
    room_y, room_x = height - h, width - w
    parts = np.linspace(0, 1, crops) if crops > 1 else [0.5]
    along_x = room_x >= room_y
    return [
        (float(room_y * (0.5 if along_x else part)), float(room_x * (part if along_x else 0.5)), float(h), float(w))
        for part in parts
    ]
