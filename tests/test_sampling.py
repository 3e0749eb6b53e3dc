"""Frames and boxes, against values worked out by hand."""

import numpy as np
import pytest

from vivit_jax.checkpoints.timesformer import released_preprocessing
from vivit_jax.data import sampling
from vivit_jax.variants import model_config


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


def test_the_released_timesformer_spreads_its_frames_over_the_clip():
    assert sampling.clip_offsets(8, 32.0, "span").tolist() == [0, 36, 72, 109, 145, 182, 218, 255]
    assert sampling.even_clips(300, 8, 32.0, "span", "loop", 1)[0].tolist() == [22, 58, 94, 131, 167, 204, 240, 277]


@pytest.mark.parametrize("classes, stride, seen", [
    (400, 32.0, [0, 36, 72, 99, 99, 99, 99, 99]),  # stays on the last frame, as the release does
    (174, 32.0, [6, 18, 31, 43, 56, 68, 80, 93]),  # Something-Something v2: the middle of each part
])  # fmt: skip
def test_what_released_timesformers_see_of_a_short_video(classes, stride, seen):
    fed = released_preprocessing(model_config("timesformer_b", classes), {})
    (frames,) = sampling.even_clips(100, fed.num_frames, fed.stride, fed.sampling, fed.short_clips, 1)
    assert fed.stride == stride and frames.tolist() == seen


def test_segments():
    (middle,) = sampling.even_clips(41, 4, 2.0, "segments", "loop", 1)
    assert middle.tolist() == [5, 15, 25, 35]
    early, late = sampling.even_clips(41, 4, 2.0, "segments", "loop", 2)
    assert early.tolist() == [2, 12, 22, 32] and late.tolist() == [7, 17, 27, 37]
    rng = np.random.default_rng(0)
    clips = np.stack([sampling.random_clip(41, 4, 2.0, "segments", "loop", rng) for _ in range(500)])
    assert clips.min(0).tolist() == [0, 10, 20, 30] and clips.max(0).tolist() == [10, 20, 30, 40]
    assert sampling.even_clips(1, 4, 2.0, "segments", "loop", 1)[0].tolist() == [0, 0, 0, 0]
    assert sampling.even_clips(3, 8, 2.0, "segments", "loop", 1)[0].max() <= 2


def test_whole():
    assert sampling.random_clip(31, 4, 2.0, "whole", "loop", np.random.default_rng(0)).tolist() == [0, 10, 20, 30]
    assert sampling.random_clip(2, 4, 2.0, "whole", "loop", np.random.default_rng(0)).tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("rule", ["strided", "span", "segments", "whole"])
@pytest.mark.parametrize("short_clips", ["loop", "hold"])
def test_every_rule_stays_inside_every_video(rule, short_clips):
    rng = np.random.default_rng(0)
    for total in (1, 2, 7, 64, 1000):
        clips = sampling.even_clips(total, 8, 4.0, rule, short_clips, 1 if rule == "whole" else 3)
        for clip in [*clips, sampling.random_clip(total, 8, 4.0, rule, short_clips, rng)]:
            assert clip.shape == (8,) and clip.min() >= 0 and clip.max() < total


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


def test_jittered_crops_have_the_size_they_would_have_after_resizing():
    rng = np.random.default_rng(0)
    sides, corners = [], []
    for _ in range(300):
        top, left, height, width = sampling.jittered_box(256, 340, (112, 224), (230.0, 340.0), rng)
        assert height / width == pytest.approx(112 / 224)
        assert 0 <= top <= 256 - height and 0 <= left <= 340 - width
        sides.append(224 * 256 / width)  # the short side of the whole picture when the crop is 224 pixels wide
        corners.append((top / (256 - height), left / (340 - width)))
    assert 230 <= min(sides) < 235 and 335 < max(sides) <= 340
    np.testing.assert_allclose(np.mean(corners, 0), 0.5, atol=0.06)
    np.testing.assert_allclose(np.mean(sides), 285, atol=6)


def test_sides_that_are_jittered_apart():
    rng = np.random.default_rng(0)
    boxes = [sampling.jittered_box(256, 340, (224, 224), (230.0, 340.0), rng, apart=True) for _ in range(300)]
    scales = np.array([(224 * 256 / height, 224 * 256 / width) for _, _, height, width in boxes])
    assert (scales.min(0) < 235).all() and (scales.min(0) >= 230).all() and (scales.max(0) > 335).all()
    assert abs(np.corrcoef(scales.T)[0, 1]) < 0.15  # each by itself


def test_jitter_never_asks_for_more_than_there_is():
    """A portrait, and a crop that is wider than it."""
    box = sampling.jittered_box(400, 200, (224, 448), (224.0, 225.0), np.random.default_rng(0))
    assert box[3] == pytest.approx(200) and box[2] == pytest.approx(100) and box[1] == pytest.approx(0, abs=1e-9)
