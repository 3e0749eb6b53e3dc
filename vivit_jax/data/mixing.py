"""Augmentation across the clips of a batch, on the device: mixup, CutMix; and random erasing. Alike for all frames."""

from typing import Any

import jax
import jax.numpy as jnp

from vivit_jax.sections import Augment

_ERASED_AREA, _ERASED_ASPECT = (0.02, 1 / 3), (0.3, 1 / 0.3)  # Zhong et al. 2017


def mix(video: jax.Array, targets: Any, key: jax.Array, augment: Augment) -> tuple[jax.Array, Any]:
    """Mixes every clip with its counterpart from the other end of the (global) batch.

    Args:
      video: float [B, T, h, w, 3].
      targets: float [B, K], rows that sum to 1; or one by head.
    Returns:
      mixed video and targets. With both mixup and CutMix on, a coin decides for the batch.
    """
    key_coin, key_mixup, key_cutmix = jax.random.split(key, 3)
    if augment.mixup and augment.cutmix:
        use_mixup = jax.random.bernoulli(key_coin)
        return jax.lax.cond(
            use_mixup,
            lambda: mixup(video, targets, _beta(key_mixup, augment.mixup)),
            lambda: cutmix(video, targets, key_cutmix, augment.cutmix),
        )
    if augment.mixup:
        return mixup(video, targets, _beta(key_mixup, augment.mixup))
    if augment.cutmix:
        return cutmix(video, targets, key_cutmix, augment.cutmix)
    return video, targets


def _beta(key: jax.Array, alpha: float) -> jax.Array:
    return jax.random.beta(key, alpha, alpha)


def mixup(video: jax.Array, targets: Any, part: jax.Array) -> tuple[jax.Array, Any]:
    """`part` of each clip and the rest of its counterpart (Zhang et al. 2017; one part for the batch, as in Scenic)."""
    return _weighed(video, part), jax.tree.map(lambda x: _weighed(x, part), targets)


def _weighed(x: jax.Array, part: jax.Array) -> jax.Array:
    return part * x + (1 - part) * x[::-1]


def cutmix(video: jax.Array, targets: Any, key: jax.Array, alpha: float) -> tuple[jax.Array, Any]:
    """Pastes a box of the counterpart over each clip; labels weigh what is seen of each (Yun et al. 2019)."""
    key_part, key_box = jax.random.split(key)
    side = jnp.sqrt(1 - _beta(key_part, alpha))
    inside = _box(key_box, video.shape[2:4], side, side)
    part = 1 - inside.mean()
    return jnp.where(inside[..., None], video[::-1], video), jax.tree.map(lambda x: _weighed(x, part), targets)


def erase(video: jax.Array, key: jax.Array, probability: float) -> jax.Array:
    """Fills a random box of some clips with noise, each clip with its own: float [B, T, h, w, 3] in [0, 1]."""

    def one(clip: jax.Array, key: jax.Array) -> jax.Array:
        key_coin, key_area, key_aspect, key_box, key_noise = jax.random.split(key, 5)
        area = jax.random.uniform(key_area, (), minval=_ERASED_AREA[0], maxval=_ERASED_AREA[1])
        low, high = jnp.log(jnp.asarray(_ERASED_ASPECT))
        aspect = jnp.exp(jax.random.uniform(key_aspect, (), minval=low, maxval=high))
        inside = _box(key_box, clip.shape[1:3], jnp.sqrt(area / aspect), jnp.sqrt(area * aspect))
        noise = jax.random.uniform(key_noise, clip.shape[1:], clip.dtype)
        return jnp.where(inside[..., None] & jax.random.bernoulli(key_coin, probability), noise, clip)

    return jax.vmap(one)(video, jax.random.split(key, video.shape[0]))


def _box(key: jax.Array, size: tuple[int, ...], height: jax.Array, width: jax.Array) -> jax.Array:
    """A box around a random center, cut off at the borders: bool [h, w]. Its sides are parts of the picture's."""
    key_y, key_x = jax.random.split(key)
    inside = []
    for key_axis, pixels, part in ((key_y, size[0], height), (key_x, size[1], width)):
        center = jax.random.uniform(key_axis, ()) * pixels
        inside.append(jnp.abs(jnp.arange(pixels) + 0.5 - center) < part * pixels / 2)
    return inside[0][:, None] & inside[1]
