"""RandAugment's operations beside Pillow's on the frames below each other, one picture: all see the same change."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from vivit_jax.data.augment import augment_clips
from vivit_jax.data.randaugment import OPERATIONS, apply, randaugment
from vivit_jax.sections import Augment

PILLOW = {  # at magnitude 5: level 0.5
    "color": lambda x: ImageEnhance.Color(x).enhance(1.0),
    "contrast": lambda x: ImageEnhance.Contrast(x).enhance(1.0),
    "auto_contrast": ImageOps.autocontrast,
    "equalize": ImageOps.equalize,
    "invert": ImageOps.invert,
    "posterize": lambda x: ImageOps.posterize(x, 2),
    "solarize": lambda x: ImageOps.solarize(x, 128),
}
PILLOW_STRONG = {  # at magnitude 8: factor 1.54
    "color": lambda x: ImageEnhance.Color(x).enhance(1.54),
    "contrast": lambda x: ImageEnhance.Contrast(x).enhance(1.54),
    "brightness": lambda x: ImageEnhance.Brightness(x).enhance(1.54),
    "sharpness": lambda x: ImageEnhance.Sharpness(x).enhance(1.54),
    "posterize": lambda x: ImageOps.posterize(x, 3),
    "solarize": lambda x: ImageOps.solarize(x, 204),
}
CASES = [(5, name, op) for name, op in PILLOW.items()] + [(8, name, op) for name, op in PILLOW_STRONG.items()]


def clip(frames=2, height=24, width=40, seed=0):
    """Of a limited range, which stretching shows, and darker by the frame, which changes by frame would hide."""
    noise = np.random.default_rng(seed).integers(20, 235, (frames, height // 4, width // 4, 3))
    noise = noise / np.arange(1, frames + 1)[:, None, None, None]
    return noise.repeat(4, 1).repeat(4, 2).astype(np.uint8)


def applied(name, values, magnitude, seed=0):
    call = jax.jit(lambda x: apply(x, jnp.asarray(OPERATIONS.index(name)), jax.random.key(seed), magnitude))
    return np.asarray(call(jnp.asarray(values, jnp.float32) / 255)) * 255


@pytest.mark.parametrize("magnitude, name, operation", CASES, ids=[f"{name}-{m}" for m, name, _ in CASES])
def test_as_pillow_does(magnitude, name, operation):
    values = clip()
    wanted = np.asarray(operation(Image.fromarray(values.reshape(-1, 40, 3)))).reshape(values.shape)
    ours = applied(name, values, magnitude)
    if name == "sharpness":  # Pillow rounds the smoothed picture, and one frame's border is the other's neighbor
        ours, wanted, values = (x[:, 1:-1, 1:-1] for x in (ours, wanted, values))
    np.testing.assert_allclose(ours, wanted, atol=1.6)
    if not (magnitude == 5 and name in ("color", "contrast")):  # a factor of 1
        assert np.abs(wanted.astype(float) - values).max() > 5 or name == "sharpness"


def test_solarize_add():
    values = clip()
    wanted = np.where(values < 128, np.minimum(values + 55.0, 255), values)
    np.testing.assert_allclose(applied("solarize_add", values, 5), wanted, atol=1e-3)


def test_cutout():
    values = clip()
    ours = applied("cutout", values, 2)
    covered = np.all(ours < 1e-3, axis=-1)
    assert (covered == covered[:1]).all() and 0 < covered[0].sum() <= 16 * 16
    np.testing.assert_allclose(ours[~covered], values[~covered], atol=1e-3)


def test_every_operation_treats_the_frames_alike_and_stays_in_range():
    frame = clip(1)
    for name in OPERATIONS:
        ours = applied(name, frame.repeat(3, 0), 9)
        np.testing.assert_array_equal(ours, ours[:1].repeat(3, 0))
        assert ours.min() >= 0 and ours.max() <= 255.001


def test_clips_draw_their_own_operations():
    """Each of them, or none, one time in twelve."""
    video, count = clip(2), 600
    wanted = [applied(name, video, 9) for name in OPERATIONS if name != "cutout"] + [video]
    call = jax.jit(jax.vmap(lambda x, key: randaugment(x, key, 1, 9.0), in_axes=(None, 0)))
    keys = jax.random.split(jax.random.key(0), count)
    ours = np.asarray(call(jnp.asarray(video, jnp.float32) / 255, keys)) * 255
    drawn = [np.abs(ours - one).max((1, 2, 3, 4)) < 1e-2 for one in wanted]
    covered = ~np.any(drawn, 0)
    assert len(np.unique(ours[covered].reshape(covered.sum(), -1), axis=0)) > 2  # in different places
    for times in np.sum([*drawn, covered], 1):
        assert 25 < times < 80  # of 50 expected


def test_it_is_part_of_augmentation():
    video = jnp.asarray(clip(2)[None].repeat(4, 0))
    plain, changed = (augment_clips(video, jax.random.key(3), Augment(flip=0.5, randaugment=n)) for n in (0, 2))
    assert changed.shape == plain.shape and (np.abs(changed - plain).max((1, 2, 3, 4)) > 0.01).sum() >= 3
