"""Augmentation on the device: uint8 clips in, floats out, the same change for every frame of a clip."""

from typing import Any

import dm_pix as pix
import jax
import jax.numpy as jnp

from vivit_jax.architecture import Preprocessing
from vivit_jax.data.mixing import erase, mix
from vivit_jax.data.randaugment import randaugment
from vivit_jax.sections import Augment


def _jitter(clip: jax.Array, key: jax.Array, augment: Augment) -> jax.Array:
    """[T, h, w, 3] in [0, 1], brightness, saturation, contrast and hue changed at random, as ViViT's release does."""
    keys = jax.random.split(key, 4)
    changed: Any = pix.adjust_brightness(clip, _uniform(keys[0], 0, augment.brightness))
    changed = pix.adjust_saturation(jnp.clip(changed, 0, 1), _uniform(keys[2], 1, augment.saturation))
    changed = pix.adjust_contrast(changed, _uniform(keys[1], 1, augment.contrast))
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

    flip = augment.flip
    if flip is None:
        raise ValueError("augment.flip is not decided; a run does it by the names of the classes")

    def one(clip: jax.Array, key: jax.Array) -> jax.Array:
        key_flip, key_jitter, key_gray = jax.random.split(key, 3)
        clip = _sometimes(flip, lambda x, _: x[:, :, ::-1], clip, key_flip)
        if augment.randaugment:
            clip = randaugment(clip, jax.random.fold_in(key, 1), augment.randaugment, augment.magnitude)
        clip = _sometimes(augment.jitter, lambda x, k: _jitter(x, k, augment), clip, key_jitter)
        return _sometimes(augment.grayscale, lambda x, _: pix.rgb_to_grayscale(x, keep_dims=True), clip, key_gray)

    video = jax.vmap(one)(to_float(video), jax.random.split(key, video.shape[0]))
    return erase(video, jax.random.fold_in(key, 0), augment.erase) if augment.erase else video


def augment_batch(
    batch: dict[str, Any], key: jax.Array, augment: Augment, num_classes: int | dict[str, int]
) -> tuple[jax.Array, Any]:
    """What a model is trained on: the clips of a batch changed at random, and mixed, with their labels.

    Args:
      batch: of `train_batches`. A clip that could not be had is mixed with nothing.
      num_classes: of each head, as the model's config has it.
    Returns:
      float32 [B, T, h, w, 3] in [0, 1]; the labels as they are, or float [B, K], by head where there are several.
    """
    video, targets = augment_clips(batch["video"], key, augment), batch["label"]
    if not augment.mixup and not augment.cutmix:
        return video, targets
    targets = jax.tree.map(jax.nn.one_hot, targets, num_classes)
    blank = batch["weight"] == 0
    # In the place of a blank clip its counterpart, which is so mixed with itself; the blank one weighs nothing.
    video, targets = jax.tree.map(
        lambda x: jnp.where(blank.reshape(-1, *(1,) * (x.ndim - 1)), x[::-1], x), (video, targets)
    )
    return mix(video, targets, jax.random.fold_in(key, 1), augment)


def to_float(video: jax.Array) -> jax.Array:
    """uint8 [0, 255] -> float32 [0, 1]."""
    return video.astype(jnp.float32) / 255


def normalize(video: jax.Array, preprocessing: Preprocessing) -> jax.Array:
    """[0, 1] RGB -> what the model was trained on."""
    video = video[..., ::-1] if preprocessing.channel_order == "BGR" else video
    return (video - jnp.asarray(preprocessing.mean)) / jnp.asarray(preprocessing.std)
