"""RandAugment (Cubuk et al. 2019) on the device, as ViViT's release has it for videos: nothing that moves pixels, and
what an operation takes from a picture, as its darkest value, it takes from all frames of a clip, so that none flickers.

Under `vmap` every branch of a switch is computed, so the operations are sorted into three stages instead, each computed
once, and the identity where the operation drawn is another one's: blending with a weaker picture, changing values,
covering. Magnitudes are those of the TensorFlow implementation that the release calls, with 10 as the usual maximum:
beyond it posterizing and solarizing fade out.
"""

import dm_pix as pix
import jax
import jax.numpy as jnp

BLENDS = ("color", "contrast", "brightness", "sharpness")
VALUES = ("auto_contrast", "equalize", "invert", "posterize", "solarize", "solarize_add")
OPERATIONS = (*BLENDS, *VALUES, "cutout")


def randaugment(clip: jax.Array, key: jax.Array, count: int, magnitude: float) -> jax.Array:
    """Applies `count` operations drawn at random to a clip, or none: float [T, h, w, 3] in [0, 1]."""
    for key_one in jax.random.split(key, count):
        key_draw, key_how = jax.random.split(key_one)
        drawn = jax.random.randint(key_draw, (), 0, len(OPERATIONS) + 1)
        clip = apply(clip, drawn, key_how, magnitude)
    return clip


def apply(clip: jax.Array, drawn: jax.Array, key: jax.Array, magnitude: float) -> jax.Array:
    """Applies operation number `drawn` of OPERATIONS; none where it is none of them."""
    level = magnitude / 10
    one_hot = {str(name): drawn == index for index, name in enumerate(OPERATIONS)}
    clip = _blend(clip, one_hot, 1.8 * level + 0.1)
    clip = _change_values(clip, one_hot, level)
    return _cover(clip, one_hot["cutout"], key, int(40 * level))


def _blend(clip: jax.Array, drawn: dict[str, jax.Array], factor: float) -> jax.Array:
    """Away from a weaker picture or towards it: gray, its mean, black, or smoothed."""
    gray = pix.rgb_to_grayscale(clip, keep_dims=True)
    weaker = jnp.where(drawn["color"], gray, 0.0)
    weaker = jnp.where(drawn["contrast"], gray.mean(), weaker)
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
    low, high = clip.min((0, 1, 2)), clip.max((0, 1, 2))
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
    """Every value of a channel by its rank (PIL's rule: the last value's count does not make a step)."""

    def channel(values: jax.Array) -> jax.Array:
        counts = jnp.zeros(256, jnp.int32).at[values.reshape(-1)].add(1)
        step = (values.size - counts[values.max()]) // 255
        below = jnp.cumsum(counts) - counts
        table = jnp.clip((below + step // 2) // jnp.maximum(step, 1), 0, 255)
        return jnp.where(step > 0, table[values], values)

    values = jnp.round(clip * 255).astype(jnp.int32)
    return jax.vmap(channel, in_axes=3, out_axes=3)(values).astype(clip.dtype) / 255


def _cover(clip: jax.Array, drawn: jax.Array, key: jax.Array, half: int) -> jax.Array:
    """A black square around a random pixel, `half` pixels to each side."""
    size = clip.shape[1:3]
    center = [jax.random.randint(k, (), 0, n) for k, n in zip(jax.random.split(key), size, strict=True)]
    rows, columns = (
        (jnp.arange(n) >= at - half) & (jnp.arange(n) < at + half) for n, at in zip(size, center, strict=True)
    )
    inside = rows[:, None] & columns & drawn
    return jnp.where(inside[..., None], 0.0, clip)
