"""Demonstration videos: eight motions that only the order of the frames tells from their opposites.

A textured object moves, turns, grows or shrinks on a drifting, textured background, past smaller and fainter objects
that drift too. Each scene is rendered once and written twice: as it is, and with its frames reversed under the opposite
class. No frame, and no unordered set of frames, then says which of two opposites a clip shows: a model blind to order
is right about at most half of a split.

A plane is held in complex numbers, x + iy in pixels with y downwards, so multiplying by exp(i * angle) with a positive
angle turns clockwise on the screen. An object's pose at a frame is `center + gain * z` for the points z of its texture,
which fills the unit circle: |gain| is its radius in pixels, arg(gain) its angle.
"""

import cmath
import math
from typing import NamedTuple

import numpy as np

NUM_FRAMES = 23  # odd: a clip of 8 frames at stride 2 spans 15, and the central one is its own mirror image in time
SIZE = 64  # pixels
FPS = 25

# A class, then its opposite. Over half a clip at medium speed: (pixels of travel, growth of log radius + i * turn).
_MOTIONS: dict[str, tuple[complex, complex]] = {
    "grow": (0, 0.37),
    "shrink": (0, -0.37),
    "move_down": (12j, 0),
    "move_up": (-12j, 0),
    "move_right": (12, 0),
    "move_left": (-12, 0),
    "rotate_clockwise": (0, 1.5j),
    "rotate_counterclockwise": (0, -1.5j),
}
CLASSES: tuple[str, ...] = tuple(sorted(_MOTIONS))
PAIRS = tuple(zip(list(_MOTIONS)[::2], list(_MOTIONS)[1::2], strict=True))

_PROGRESS = np.linspace(-1, 1, NUM_FRAMES, dtype=np.float32)
_PIXELS = np.arange(SIZE, dtype=np.float32)
_TEXELS = 64  # texture side: more than a texel a pixel and soft edges, so that the nearest one is good enough
_UNIT = np.linspace(-1, 1, _TEXELS, dtype=np.float32)
_DISC = _UNIT + 1j * _UNIT[:, None]
_DISC_RADIUS, _DISC_ANGLE = np.abs(_DISC), np.angle(_DISC)


class Sprite(NamedTuple):
    """One object."""

    texture: np.ndarray  # float32 [4, _TEXELS * _TEXELS]: color in 0-255 and opacity in 0-1
    center: np.ndarray  # complex64 [NUM_FRAMES]
    gain: np.ndarray  # complex64 [NUM_FRAMES]


class Scene(NamedTuple):
    """All that a clip shows."""

    background: np.ndarray  # float32 [3, n, n]: colors in 0-255 at the knots of a periodic texture
    drift: complex  # pixels over half a clip
    sprites: tuple[Sprite, ...]  # back to front: the last one is the object whose motion names the class


def _weights(positions: np.ndarray, n: int) -> np.ndarray:
    """Smooth interpolation between `n` knots one apart on a periodic line: positions [...] -> weights [..., n]."""
    offset = positions[..., None] - np.arange(n, dtype=np.float32)
    bell = np.exp(-1.5 * (offset - n * np.rint(offset / n)) ** 2)
    return bell / bell.sum(-1, keepdims=True)


_BLOTCHES = _weights(2 * _UNIT, 5)


def _texture(rng: np.random.Generator, opacity: float) -> np.ndarray:
    """A polygon, light on its right side and saturated on the other, without rotational symmetry in shape or color."""
    lean = rng.uniform(0, 2 * math.pi)
    sector = 2 * math.pi / int(rng.integers(3, 7))
    polygon = math.cos(sector / 2) / np.cos(_DISC_ANGLE - sector * np.rint(_DISC_ANGLE / sector))
    edge = (0.3 + 0.7 * polygon) * (1 + 0.2 * np.cos(_DISC_ANGLE - lean)) / 1.2
    alpha = opacity * np.clip((edge - _DISC_RADIUS) * 12, 0, 1)

    blotches = _BLOTCHES @ rng.uniform(-0.5, 0.5, (5, 5)).astype(np.float32) @ _BLOTCHES.T
    mix = np.clip(4 * (_UNIT + blotches) + 0.5, 0, 1)
    light = rng.uniform(180, 255, 3).tolist()
    shade = np.where(np.arange(3) == rng.integers(3), light, rng.uniform(0, 70, 3)).tolist()  # a saturated color
    planes = [*(dark + mix * (bright - dark) for dark, bright in zip(shade, light, strict=True)), alpha]
    return np.stack(planes).reshape(4, -1)


def _vector(rng: np.random.Generator, length: float) -> complex:
    """A vector of up to `length` pixels in any direction."""
    return cmath.rect(rng.uniform(0, length), rng.uniform(0, 2 * math.pi))


def _sprite(
    rng: np.random.Generator, opacity: float, middle: complex, travel: complex, radius: float, rate: complex
) -> Sprite:
    """An object at `middle`, `radius` in size and its light side about to the right halfway through the clip."""
    gain = radius * np.exp(1j * rng.uniform(-0.8, 0.8) + rate * _PROGRESS)
    return Sprite(_texture(rng, opacity), middle + travel * _PROGRESS, gain)


def _object(kind: str, rng: np.random.Generator) -> Sprite:
    """The object that shows the motion, within the picture in all frames, with a little of the other motions added."""
    speed = rng.uniform(0.8, 1.2)
    travel = speed * _MOTIONS[kind][0] + _vector(rng, 1.0)
    rate = speed * _MOTIONS[kind][1] + complex(rng.uniform(-0.02, 0.02), rng.uniform(-0.15, 0.15))
    radius = rng.uniform(12, 15)
    room = SIZE / 2 - 1 - radius * np.exp(abs(rate.real)) - np.abs([travel.real, travel.imag])
    x, y = SIZE / 2 - 0.5 + np.minimum(room, 5) * rng.uniform(-1, 1, 2)
    return _sprite(rng, 1.0, complex(x, y), travel, radius, rate)


def _distractor(rng: np.random.Generator) -> Sprite:
    """A small, faint object that drifts straight on or, as often, stands still."""
    middle = complex(*rng.uniform(0, SIZE, 2))
    travel = _vector(rng, 9.0 * rng.integers(2))
    return _sprite(rng, rng.uniform(0.3, 0.6), middle, travel, rng.uniform(3, 5), 0)


def sample_scene(kind: str, rng: np.random.Generator) -> Scene:
    """A random scene of class `kind`; all but the motion of the main object is as likely reversed as not."""
    background = rng.uniform(20, 80, (3, 9, 9)).astype(np.float32)
    distractors = tuple(_distractor(rng) for _ in range(rng.integers(4)))
    return Scene(background, _vector(rng, 5.0), (*distractors, _object(kind, rng)))


def _paste(planes: np.ndarray, sprite: Sprite) -> None:
    """Draws over `planes` [3, t, h, w], in place; only the box that the object sweeps is touched."""
    texture, center, gain = sprite

    def span(positions: np.ndarray) -> slice:
        low, high = (positions - np.abs(gain)).min(), (positions + np.abs(gain)).max()
        return slice(max(int(low), 0), max(int(high) + 1, 0))

    rows, columns = span(np.imag(center)), span(np.real(center))
    z = (_PIXELS[columns] + 1j * _PIXELS[rows, None] - center[:, None, None]) * (1 / gain)[:, None, None]
    x, y = (np.clip((part + 1) * (_TEXELS / 2), 0, _TEXELS - 1).astype(np.int32) for part in (z.real, z.imag))
    texels = texture.take(y * _TEXELS + x, axis=1)
    box = planes[:, :, rows, columns]
    box += texels[3] * (texels[:3] - box)


def draw(scene: Scene) -> np.ndarray:
    """The clip: uint8 [NUM_FRAMES, SIZE, SIZE, 3], RGB."""
    n = scene.background.shape[-1]
    drift = scene.drift.imag, scene.drift.real
    y, x = (_weights((_PIXELS - speed * _PROGRESS[:, None]) * (n / SIZE), n) for speed in drift)  # [T, SIZE, n]
    planes = y @ scene.background[:, None] @ np.swapaxes(x, -1, -2)
    for sprite in scene.sprites:
        _paste(planes, sprite)
    return np.stack(list(planes.astype(np.uint8)), axis=-1)


def render(kind: str, rng: np.random.Generator) -> np.ndarray:
    """One random clip of class `kind` (one of `CLASSES`): uint8 [23, 64, 64, 3], RGB."""
    return draw(sample_scene(kind, rng))
