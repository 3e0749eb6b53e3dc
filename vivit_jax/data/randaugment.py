"""RandAugment (Cubuk et al. 2019) on the device, the same change for every frame of a clip.

Under `vmap` every branch of a switch is computed, so the operations are sorted into four stages instead, each computed
once, and the identity where the operation drawn is another one's: moving pixels, blending with a weaker picture,
changing values, covering. Magnitudes are those of the TensorFlow implementation that ViViT's recipes name, with 10 as
the usual maximum: beyond it posterizing and solarizing fade out.
"""

import dm_pix as pix
import jax
import jax.numpy as jnp
import numpy as np

MOVES = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
BLENDS = ("color", "contrast", "brightness", "sharpness")
VALUES = ("auto_contrast", "equalize", "invert", "posterize", "solarize", "solarize_add")
OPERATIONS = (*MOVES, *BLENDS, *VALUES, "cutout")
GRAY = 0.5  # what comes in from outside of the picture, and what covers it


def randaugment(clip: jax.Array, key: jax.Array, count: int, magnitude: float) -> jax.Array:
    """Applies `count` operations drawn at random to a clip: float [T, h, w, 3] in [0, 1]."""
    for key_one in jax.random.split(key, count):
        key_draw, key_how = jax.random.split(key_one)
        drawn = jax.random.randint(key_draw, (), 0, len(OPERATIONS))
        clip = apply(clip, drawn, key_how, magnitude)
    return clip


def apply(clip: jax.Array, drawn: jax.Array, key: jax.Array, magnitude: float) -> jax.Array:
    """Applies operation number `drawn` of OPERATIONS."""
    level, (key_sign, key_box) = magnitude / 10, jax.random.split(key)
    one_hot = {str(name): drawn == index for index, name in enumerate(OPERATIONS)}
    sign = jnp.where(jax.random.bernoulli(key_sign), 1.0, -1.0)
    clip = _move(clip, one_hot, sign * level)
    clip = _blend(clip, one_hot, 1.8 * level + 0.1)
    clip = _change_values(clip, one_hot, level)
    return _cover(clip, one_hot["cutout"], key_box, int(40 * level))


def _move(clip: jax.Array, drawn: dict[str, jax.Array], level: jax.Array) -> jax.Array:
    """Rotates by 30 degrees, shears by 0.3 or translates by 100 pixels at level 1; to the nearest pixel."""
    height, width = clip.shape[1:3]
    angle = jnp.where(drawn["rotate"], level * np.pi / 6, 0.0)
    shear_x, shear_y, shift_x, shift_y = (
        jnp.where(drawn[name], size * level, 0.0)
        for name, size in (("shear_x", 0.3), ("shear_y", 0.3), ("translate_x", 100), ("translate_y", 100))
    )
    y, x = jnp.arange(height)[:, None], jnp.arange(width)
    center_y, center_x = (height - 1) / 2, (width - 1) / 2
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    # Where each pixel comes from.
    from_y = center_y + cos * (y - center_y) - sin * (x - center_x) + shear_y * x + shift_y
    from_x = center_x + sin * (y - center_y) + cos * (x - center_x) + shear_x * y + shift_x
    rows, columns = jnp.round(from_y).astype(jnp.int32), jnp.round(from_x).astype(jnp.int32)
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    moved = clip[:, jnp.clip(rows, 0, height - 1), jnp.clip(columns, 0, width - 1)]
    return jnp.where(inside[..., None], moved, GRAY)


def _blend(clip: jax.Array, drawn: dict[str, jax.Array], factor: float) -> jax.Array:
    """Away from a weaker picture or towards it: gray, its mean, black, or smoothed."""
    gray = pix.rgb_to_grayscale(clip, keep_dims=True)
    weaker = jnp.where(drawn["color"], gray, 0.0)
    weaker = jnp.where(drawn["contrast"], gray.mean((1, 2, 3), keepdims=True), weaker)
    weaker = jnp.where(drawn["sharpness"], _smoothed(clip), weaker)
    factor_drawn = jnp.where(jnp.stack([drawn[name] for name in BLENDS]).any(), factor, 1.0)
    return jnp.clip(weaker + factor_drawn * (clip - weaker), 0, 1)


def _smoothed(clip: jax.Array) -> jax.Array:
    """A 3 x 3 mean in which the center counts five times; the border stays."""
    height, width = clip.shape[1:3]
    total = sum(
        (5.0 if y == x == 1 else 1.0) * clip[:, y : height - 2 + y, x : width - 2 + x]
        for y in range(3)
        for x in range(3)
    )
    return clip.at[:, 1:-1, 1:-1].set(total / 13)


def _change_values(clip: jax.Array, drawn: dict[str, jax.Array], level: float) -> jax.Array:
    low, high = clip.min((1, 2), keepdims=True), clip.max((1, 2), keepdims=True)
    bits, threshold, added = min(int(4 * level), 8), int(256 * level) / 255, int(110 * level) / 255
    levels = 2.0**bits
    changed = {
        "auto_contrast": jnp.where(high > low, (clip - low) / jnp.maximum(high - low, 1e-6), clip),
        "equalize": _equalized(clip),
        "invert": 1 - clip,
        "posterize": jnp.floor(clip * 255 / (256 / levels)) * (256 / levels) / 255,
        "solarize": jnp.where(clip < threshold, clip, 1 - clip),
        "solarize_add": jnp.where(clip < 128 / 255, jnp.clip(clip + added, 0, 1), clip),
    }
    return jnp.select([drawn[name] for name in VALUES], [changed[name] for name in VALUES], clip)


def _equalized(clip: jax.Array) -> jax.Array:
    """Every value of a frame's channel by its rank (PIL's rule: the last value's count does not make a step)."""

    def channel(values: jax.Array) -> jax.Array:
        counts = jnp.zeros(256, jnp.int32).at[values.reshape(-1)].add(1)
        step = (values.size - counts[values.max()]) // 255
        below = jnp.cumsum(counts) - counts
        table = jnp.clip((below + step // 2) // jnp.maximum(step, 1), 0, 255)
        return jnp.where(step > 0, table[values], values)

    values = jnp.round(clip * 255).astype(jnp.int32)
    equalize = jax.vmap(jax.vmap(channel, in_axes=2, out_axes=2))
    return equalize(values).astype(clip.dtype) / 255


def _cover(clip: jax.Array, drawn: jax.Array, key: jax.Array, half: int) -> jax.Array:
    """A gray square around a random pixel, `half` pixels to each side."""
    size = clip.shape[1:3]
    center = [jax.random.randint(k, (), 0, n) for k, n in zip(jax.random.split(key), size, strict=True)]
    rows, columns = (
        (jnp.arange(n) >= at - half) & (jnp.arange(n) < at + half) for n, at in zip(size, center, strict=True)
    )
    inside = rows[:, None] & columns & drawn
    return jnp.where(inside[..., None], GRAY, clip)
