"""RandAugment's operations beside Pillow's, and all of them alike for the frames of a clip."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from vivit_jax.data.augment import augment_clips
from vivit_jax.data.randaugment import GRAY, OPERATIONS, apply, randaugment
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
    """Smooth, of a limited range, so that stretching it shows."""
    noise = np.random.default_rng(seed).integers(20, 235, (frames, height // 4, width // 4, 3))
    return noise.repeat(4, 1).repeat(4, 2).astype(np.uint8)


def applied(name, values, magnitude, seed=0):
    call = jax.jit(lambda x: apply(x, jnp.asarray(OPERATIONS.index(name)), jax.random.key(seed), magnitude))
    return np.asarray(call(jnp.asarray(values, jnp.float32) / 255)) * 255


@pytest.mark.parametrize("magnitude, name, operation", CASES, ids=[f"{name}-{m}" for m, name, _ in CASES])
def test_as_pillow_does(magnitude, name, operation):
    values = clip()
    wanted = np.stack([np.asarray(operation(Image.fromarray(frame))) for frame in values])
    ours = applied(name, values, magnitude)
    if name == "contrast":  # the mean is the clip's, not the frame's
        gray = np.asarray(Image.fromarray(values.reshape(-1, 40, 3)).convert("L"), float).mean()
        wanted = np.clip(gray + (1.8 * magnitude / 10 + 0.1) * (values - gray), 0, 255)
    if name == "sharpness":  # Pillow rounds the smoothed picture, and leaves its border
        ours, wanted = ours[:, 1:-1, 1:-1], wanted[:, 1:-1, 1:-1]
    np.testing.assert_allclose(ours, wanted, atol=1.6)
    if not (magnitude == 5 and name in ("color", "contrast")):  # a factor of 1
        assert np.abs(wanted - values[:, : wanted.shape[1], : wanted.shape[2]]).max() > 5 or name == "sharpness"


def test_solarize_add():
    values = clip()
    wanted = np.where(values < 128, np.minimum(values + 55.0, 255), values)
    np.testing.assert_allclose(applied("solarize_add", values, 5), wanted, atol=1e-3)


@pytest.mark.parametrize("name", ["rotate", "shear_x", "shear_y", "translate_x", "translate_y"])
def test_moves(name):
    """Every pixel comes from where the definition says, or from outside."""
    values, level = clip(1), 0.2
    matches = []
    for sign in (1, -1):
        wanted = np.full(values.shape, GRAY * 255)
        for y in range(24):
            for x in range(40):
                sy, sx = float(y), float(x)
                if name == "rotate":
                    angle, cy, cx = sign * level * np.pi / 6, 11.5, 19.5
                    sy = cy + np.cos(angle) * (y - cy) - np.sin(angle) * (x - cx)
                    sx = cx + np.sin(angle) * (y - cy) + np.cos(angle) * (x - cx)
                elif name.startswith("shear"):
                    sx, sy = (x + sign * 0.3 * level * y, y) if name == "shear_x" else (x, y + sign * 0.3 * level * x)
                else:
                    sx, sy = (x + sign * 20, y) if name == "translate_x" else (x, y + sign * 20)
                sy, sx = round(sy), round(sx)
                if 0 <= sy < 24 and 0 <= sx < 40:
                    wanted[0, y, x] = values[0, sy, sx]
        ours = [applied(name, values, 10 * level, seed) for seed in range(8)]
        matches.append([(np.abs(x - wanted) < 1).mean() > 0.98 for x in ours])  # but for ties of rounding
    assert np.all(np.any(matches, axis=0)) and np.all(np.any(matches, axis=1))  # both signs, and nothing else


def test_cutout():
    values = clip()
    ours = applied("cutout", values, 2)
    covered = np.all(np.abs(ours - GRAY * 255) < 1e-3, axis=-1)
    assert (covered == covered[:1]).all() and 0 < covered[0].sum() <= 16 * 16
    np.testing.assert_allclose(ours[~covered], values[~covered], atol=1e-3)


def test_every_operation_treats_the_frames_alike_and_stays_in_range():
    frame = clip(1)
    for name in OPERATIONS:
        ours = applied(name, frame.repeat(3, 0), 9)
        np.testing.assert_array_equal(ours, ours[:1].repeat(3, 0))
        assert ours.min() >= 0 and ours.max() <= 255.001


def test_clips_draw_their_own_operations():
    video = jnp.asarray(clip(2)[None].repeat(48, 0), jnp.float32) / 255
    call = jax.jit(jax.vmap(lambda x, key: randaugment(x, key, 1, 9.0)))
    ours = np.asarray(call(video, jax.random.split(jax.random.key(0), 48)))
    assert len(np.unique(ours.reshape(48, -1).round(3), axis=0)) > len(OPERATIONS)  # by sign and place, too


def test_it_is_part_of_augmentation():
    video = jnp.asarray(clip(2)[None].repeat(4, 0))
    plain, changed = (augment_clips(video, jax.random.key(3), Augment(flip=0.5, randaugment=n)) for n in (0, 2))
    assert changed.shape == plain.shape and (np.abs(changed - plain).max((1, 2, 3, 4)) > 0.01).sum() >= 3
