"""What happens to a batch of clips on the device before the model sees it."""

import colorsys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import runs
from vivit_jax.config import from_dict
from vivit_jax.data.augment import augment_clips, normalize
from vivit_jax.sections import Augment
from vivit_jax.variants import model_config, preprocessing


def clips(count=16):
    return jax.random.randint(jax.random.key(0), (count, 3, 8, 10, 3), 0, 256).astype(jnp.uint8)


def augment(**changes):
    config = from_dict(runs.config_dict(Path("x"), **{f"augment__{k}": v for k, v in changes.items()}))
    return np.asarray(augment_clips(clips(), jax.random.key(1), config.augment))


def test_flip_is_per_clip():
    plain, flipped = np.asarray(clips()) / 255.0, augment(flip=0.5, jitter=0.0, grayscale=0.0)
    same = [np.allclose(a, b, atol=1e-6) for a, b in zip(plain, flipped)]
    mirrored = [np.allclose(a, b[:, :, ::-1], atol=1e-6) for a, b in zip(plain, flipped)]
    assert all(a != b for a, b in zip(same, mirrored)) and 0 < sum(same) < 16


def test_grayscale_and_jitter_treat_all_frames_of_a_clip_alike():
    gray = augment(flip=0.0, jitter=0.0, grayscale=1.0)
    np.testing.assert_allclose(gray[..., 0], gray[..., 1], atol=1e-6)
    config = from_dict(runs.config_dict(Path("x"), augment__flip=0.0, augment__jitter=1.0, augment__grayscale=0.0))
    still = jnp.repeat(clips()[:, :1], 3, axis=1)
    jittered = np.asarray(augment_clips(still, jax.random.key(1), config.augment))
    np.testing.assert_allclose(jittered[:, 0], jittered[:, 2], atol=1e-6)
    assert np.abs(jittered - np.asarray(still) / 255).mean() > 0.01
    assert jittered.min() >= 0 and jittered.max() <= 1


def test_normalization_and_channel_order():
    feeding = preprocessing("timesformer_b", model_config("timesformer_b", 8))
    video = jax.random.uniform(jax.random.key(0), (1, 2, 3, 4, 3))
    np.testing.assert_allclose(normalize(video, feeding), (video - 0.45) / 0.225, atol=1e-5)
    bgr = replace(feeding, channel_order="BGR")
    np.testing.assert_allclose(normalize(video, bgr), (video[..., ::-1] - 0.45) / 0.225, atol=1e-5)


def test_colors_are_changed_as_the_release_does(monkeypatch):
    """Each by the most that it may be: brightness, saturation, contrast around the mean of each frame, then hue."""
    monkeypatch.setattr("vivit_jax.data.augment._uniform", lambda _, center, spread: center + spread)
    frame = np.random.default_rng(0).uniform(0.35, 0.55, (6, 5, 3))  # nothing is cut off
    ours = augment_clips(
        jnp.asarray((frame * 255).round(), jnp.uint8)[None, None], jax.random.key(0), Augment(flip=0.0, jitter=1.0)
    )
    wanted = (frame * 255).round() / 255 + 32 / 255
    hsv = np.array([[colorsys.rgb_to_hsv(*pixel) for pixel in row] for row in wanted]) * (1, 1.4, 1)
    wanted = np.array([[colorsys.hsv_to_rgb(*pixel) for pixel in row] for row in hsv])
    mean = wanted.mean((0, 1))
    wanted = mean + 1.4 * (wanted - mean)
    assert wanted.min() > 0 and wanted.max() < 1
    hsv = np.array([[colorsys.rgb_to_hsv(*pixel) for pixel in row] for row in wanted]) + np.array([0.2, 0, 0])
    wanted = np.array([[colorsys.hsv_to_rgb(*pixel) for pixel in row] for row in hsv])
    np.testing.assert_allclose(ours[0, 0], wanted, atol=1e-4)
