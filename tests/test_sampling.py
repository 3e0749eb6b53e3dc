"""Frames and boxes, against values worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vivit_jax.data import sampling
from vivit_jax.models.tokenizers import resize_axis, uniform_frames


def test_offsets_and_short_clips():
    offsets = sampling.clip_offsets(4, 2.0)
    assert offsets.tolist() == [0, 2, 4, 6]
    assert sampling.clip_offsets(5, 1.5).tolist() == [0, 1, 3, 4, 6]
    assert sampling.frames(1, offsets, 5, "loop").tolist() == [1, 3, 0, 2]
    assert sampling.frames(1, offsets, 5, "hold").tolist() == [1, 3, 4, 4]


def test_starts():
    offsets = sampling.clip_offsets(8, 2.0)
    assert sampling.clip_starts(23, offsets, 1).tolist() == [4]  # 4 ... 18 of 0 ... 22: the middle
    assert sampling.clip_starts(23, offsets, 3).tolist() == [0, 4, 8]
    assert sampling.clip_starts(10, offsets, 3).tolist() == [0, 0, 0]
    rng = np.random.default_rng(0)
    starts = [sampling.random_start(23, offsets, rng) for _ in range(300)]
    assert set(starts) == set(range(9)) and sampling.random_start(5, offsets, rng) == 0


@pytest.mark.parametrize("height, width", [(256, 340), (340, 256), (100, 900)])
def test_random_boxes_lie_inside(height, width):
    rng = np.random.default_rng(0)
    for _ in range(300):
        top, left, h, w = sampling.random_box(height, width, (0.3, 1.0), (0.75, 4 / 3), rng)
        assert top >= 0 and left >= 0 and top + h <= height + 1e-6 and left + w <= width + 1e-6
        assert 0.74 < w / h < 1.34
        if width < 900:
            assert h * w > 0.29 * height * width


def test_view_boxes():
    assert sampling.view_boxes(256, 340, 256, (224, 224), 1) == [(16.0, 58.0, 224.0, 224.0)]
    boxes = sampling.view_boxes(256, 340, 256, (224, 224), 3)
    assert boxes == [(16.0, 0.0, 224.0, 224.0), (16.0, 58.0, 224.0, 224.0), (16.0, 116.0, 224.0, 224.0)]
    tall = sampling.view_boxes(340, 256, 256, (224, 224), 3)
    assert tall == [(left, top, h, w) for top, left, h, w in boxes]
    assert sampling.view_boxes(128, 170, 256, (224, 224), 1) == [(8.0, 29.0, 112.0, 112.0)]
    assert sampling.view_boxes(100, 100, 50, (50, 80), 1) == [(18.75, 0.0, 62.5, 100.0)]  # wider than the picture


def test_uniform_frames_are_the_released_ones():
    assert uniform_frames(32, 8).tolist() == [4, 7, 11, 14, 18, 21, 25, 28]
    assert uniform_frames(8, 8).tolist() == [1, 2, 3, 4, 4, 5, 6, 7]


def test_positions_are_resized_corner_to_corner_or_to_the_nearest():
    table = jnp.array([0.0, 10.0, 40.0])[:, None]
    np.testing.assert_allclose(resize_axis(table, 0, 5, "linear")[:, 0], [0, 5, 10, 25, 40], atol=1e-5)
    np.testing.assert_allclose(resize_axis(table, 0, 5, "nearest")[:, 0], [0, 0, 10, 10, 40])
    np.testing.assert_allclose(resize_axis(table, 0, 1, "linear")[:, 0], [0])
    two = jax.random.normal(jax.random.key(0), (2, 3, 4))
    np.testing.assert_allclose(resize_axis(two, 1, 5, "linear")[:, ::2], two, atol=1e-6)
