"""Mixup, CutMix and random erasing: the original's numbers, labels that weigh what is seen, any number of devices."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import runs
from vivit_jax.data.augment import augment_clips
from vivit_jax.data.mixing import cutmix, erase, mix, mixup
from vivit_jax.sections import Augment
from vivit_jax.training import loop
from vivit_jax.training.losses import cross_entropy

GOLDEN = dict(np.load(Path(__file__).parent / "goldens" / "train_utils.npz"))


def batch(size=4, classes=5, seed=0):
    video = jax.random.uniform(jax.random.key(seed), (size, 3, 16, 24, 3))
    return video, jax.nn.one_hot(jnp.arange(size) % classes, classes)


def test_mixup_is_the_originals():
    part = GOLDEN["mixup_beta_weight"]
    video, targets = mixup(jnp.asarray(GOLDEN["mixup_in"]), jnp.asarray(GOLDEN["mixup_lab"]), part)
    np.testing.assert_allclose(video, GOLDEN["mixup_out"], atol=1e-6)
    np.testing.assert_allclose(targets, GOLDEN["mixup_outlab"], atol=1e-6)


@pytest.mark.parametrize("smoothing", ["None", "0.2", "0.3"])
def test_cross_entropy_is_the_originals(smoothing):
    weight = GOLDEN["batch_mask"]
    rate = 0.0 if smoothing == "None" else float(smoothing)
    loss = cross_entropy(jnp.asarray(GOLDEN["logits"]), jnp.asarray(GOLDEN["onehot"]), rate)
    np.testing.assert_allclose((loss * weight).sum() / weight.sum(), GOLDEN[f"softmax_ce_ls_{smoothing}"], rtol=1e-5)


def test_cutmix_labels_weigh_the_pixels():
    video, targets = batch()
    for seed in range(20):
        mixed, labels = cutmix(video, targets, jax.random.key(seed), 1.0)
        own = np.all(np.asarray(mixed == video), axis=(1, 4))  # the same box in every frame
        other = np.all(np.asarray(mixed == video[::-1]), axis=(1, 4))
        assert (own | other).all()
        np.testing.assert_allclose(
            labels, own.mean((1, 2))[:, None] * targets + other.mean((1, 2))[:, None] * targets[::-1], atol=1e-5
        )
        rows, columns = np.where(other[0])
        if len(rows):  # a box
            assert other[0].sum() == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)


def test_erase():
    video, _ = batch(64)
    erased = erase(video, jax.random.key(1), 0.5)
    changed = np.any(np.asarray(erased != video), axis=-1)  # [B, T, h, w]
    some = changed.any((1, 2, 3))
    assert 15 < some.sum() < 49
    assert (changed == changed[:, :1]).all()  # the same box in every frame
    assert 0.005 < changed[some].mean() < 0.34
    np.testing.assert_array_equal(erase(video, jax.random.key(1), 0.0), video)


def test_both_take_turns_and_neither_changes_nothing():
    video, targets = batch()
    kinds = set()
    for seed in range(12):
        mixed, labels = mix(video, targets, jax.random.key(seed), Augment(mixup=1.0, cutmix=1.0))
        np.testing.assert_allclose(labels.sum(-1), 1, atol=1e-5)
        kinds.add(bool(np.isin(np.asarray(mixed), np.asarray(video)).all()))  # CutMix invents no value
    assert kinds == {True, False}
    same, labels = mix(video, targets, jax.random.key(0), Augment())
    assert same is video and labels is targets


def test_one_clip_per_device_mixes_across_devices():
    video, targets = batch(8, 8)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = jax.device_put((video, targets), jax.NamedSharding(mesh, jax.P("data")))
    call = jax.jit(lambda video, targets: mix(video, targets, jax.random.key(3), Augment(mixup=1.0)))
    for ours, alone in zip(call(*spread), call(video, targets), strict=True):
        np.testing.assert_allclose(ours, alone, atol=1e-6)
        assert len(ours.sharding.device_set) == 8
    assert (np.asarray(call(*spread)[1]) > 0).sum() == 16  # two labels each


def test_training_with_all_of_it(data_dir, tmp_path):
    flags = dict(augment__mixup=0.3, augment__cutmix=1.0, augment__erase=0.25, train__label_smoothing=0.1)
    loop.train(runs.config(data_dir, **flags, train__accumulate=2), tmp_path)
    losses = [line["train/loss"] for line in runs.log(tmp_path)]
    assert np.isfinite(losses).all() and runs.metrics(tmp_path)["step"] == 6


def test_erasing_is_part_of_augmentation():
    video = jax.random.randint(jax.random.key(0), (8, 2, 16, 16, 3), 0, 256).astype(jnp.uint8)
    plain, erased = (augment_clips(video, jax.random.key(1), Augment(flip=0.5, erase=rate)) for rate in (0.0, 1.0))
    assert ((plain != erased).any((1, 2, 3, 4))).all() and 0 < (plain != erased).mean() < 0.4
