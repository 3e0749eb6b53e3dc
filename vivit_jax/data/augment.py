"""Photometric augmentation on the device: uint8 clips in, floats out, the same change for every frame of a clip."""

from typing import Any

import dm_pix as pix
import jax
import jax.numpy as jnp

from vivit_jax.architecture import Preprocessing
from vivit_jax.config import Augment
from vivit_jax.data.mixing import erase
from vivit_jax.data.randaugment import randaugment


def _jitter(clip: jax.Array, key: jax.Array, augment: Augment) -> jax.Array:
    """[T, h, w, 3] in [0, 1], brightness, contrast, saturation and hue changed at random."""
    keys = jax.random.split(key, 4)
    changed: Any = pix.adjust_brightness(clip, _uniform(keys[0], 0, augment.brightness))
    changed = pix.adjust_contrast(changed, _uniform(keys[1], 1, augment.contrast))
    changed = pix.adjust_saturation(jnp.clip(changed, 0, 1), _uniform(keys[2], 1, augment.saturation))
    changed = pix.adjust_hue(jnp.clip(changed, 0, 1), _uniform(keys[3], 0, augment.hue))
    return jnp.clip(changed, 0, 1)


def _uniform(key: jax.Array, center: float, spread: float) -> jax.Array:
    return jax.random.uniform(key, (), minval=center - spread, maxval=center + spread)


def _sometimes(probability: float, change, clip: jax.Array, key: jax.Array) -> jax.Array:
    if probability == 0:  # not computed at all
        return clip
    key_coin, key_change = jax.random.split(key)
    return jnp.where(jax.random.bernoulli(key_coin, probability), change(clip, key_change), clip)


def augment_clips(video: jax.Array, key: jax.Array, augment: Augment) -> jax.Array:
    """Randomly changes each clip of a batch.

    Args:
      video: uint8 [B, T, h, w, 3].
      key: what is done to which clip is a function of it.
    Returns:
      float32 [B, T, h, w, 3] in [0, 1].
    """

    def one(clip: jax.Array, key: jax.Array) -> jax.Array:
        key_flip, key_jitter, key_gray = jax.random.split(key, 3)
        clip = _sometimes(augment.flip, lambda x, _: x[:, :, ::-1], clip, key_flip)
        if augment.randaugment:
            clip = randaugment(clip, jax.random.fold_in(key, 1), augment.randaugment, augment.magnitude)
        clip = _sometimes(augment.jitter, lambda x, k: _jitter(x, k, augment), clip, key_jitter)
        return _sometimes(augment.grayscale, lambda x, _: pix.rgb_to_grayscale(x, keep_dims=True), clip, key_gray)

    video = jax.vmap(one)(to_float(video), jax.random.split(key, video.shape[0]))
    return erase(video, jax.random.fold_in(key, 0), augment.erase) if augment.erase else video


def to_float(video: jax.Array) -> jax.Array:
    """uint8 [0, 255] -> float32 [0, 1]."""
    return video.astype(jnp.float32) / 255


def normalize(video: jax.Array, preprocessing: Preprocessing) -> jax.Array:
    """[0, 1] RGB -> what the model was trained on."""
    video = video[..., ::-1] if preprocessing.channel_order == "BGR" else video
    return (video - jnp.asarray(preprocessing.mean)) / jnp.asarray(preprocessing.std)
