"""Re-encoding and random access, frame by frame."""

import io

import av
import numpy as np
import pytest

import videos
from vivit_jax.data.decode import DecodeError, decode
from vivit_jax.data.transcode import TranscodeError, transcode


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return transcode(videos.write(tmp_path_factory.mktemp("v") / "a.mp4", num_frames=70), 256)


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv", ".mov"])
def test_true_counts_whatever_the_container_says(tmp_path, suffix):
    path = videos.write(tmp_path / f"a{suffix}", num_frames=37, fps=30)
    clip = transcode(path, 256)
    assert (clip.num_frames, clip.height, clip.width) == (37, 48, 64) and clip.fps == pytest.approx(30)
    assert len(decode(clip.video, np.arange(37))) == 37
    with av.open(str(path)) as container:
        if suffix == ".mkv":
            assert container.streams.video[0].frames == 0  # what the container says
        originals = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    ours = decode(clip.video, np.arange(37))
    assert np.abs(ours.astype(int) - np.stack(originals)).mean() < 8


def test_any_frame_equals_that_of_a_full_decode(clip):
    whole = decode(clip.video, np.arange(70))
    for index in (0, 1, 31, 32, 33, 63, 64, 69):
        np.testing.assert_array_equal(decode(clip.video, np.array([index]))[0], whole[index])
    some = np.array([40, 3, 3, 69, 40])
    np.testing.assert_array_equal(decode(clip.video, some), whole[some])
    assert np.abs(whole[10].astype(int) - whole[11]).mean() > 5  # neighbors differ: an error by one would show


def test_random_access_needs_no_more_than_one_key_frame_interval(clip):
    with av.open(io.BytesIO(clip.video)) as container:
        keys = [packet.pts for packet in container.demux(video=0) if packet.is_keyframe]
    assert len(keys) == 3  # at frames 0, 32, 64


def test_crop_and_resize(clip):
    whole = decode(clip.video, np.array([5]))[0].astype(float)
    part = decode(clip.video, np.array([5]), box=(8, 16, 32, 24))[0]
    assert part.shape == (32, 24, 3) and np.abs(part - whole[8:40, 16:40]).mean() < 4
    half = decode(clip.video, np.array([5]), size=(24, 32))[0]
    means = whole.reshape(24, 2, 32, 2, 3).mean((1, 3))
    assert half.shape == (24, 32, 3) and np.abs(half - means).mean() < 12
    both = decode(clip.video, np.array([5, 6]), size=(10, 20), box=(8.4, 16.3, 32.2, 24.1))
    assert both.shape == (2, 10, 20, 3) and both.dtype == np.uint8


def test_missing_frames_and_broken_bytes_are_named(clip):
    with pytest.raises(DecodeError, match="a frame is missing"):
        decode(clip.video, np.array([3, 70]))
    with pytest.raises(DecodeError, match="does not decode"):
        decode(b"no video at all", np.array([0]))


def test_short_side_is_reduced_never_enlarged_and_even(tmp_path):
    path = videos.write(tmp_path / "a.mp4", height=96, width=130)
    small = transcode(path, 47)
    assert (small.height, small.width) == (48, 64) or (small.height, small.width) == (46, 64)
    assert (transcode(path, 256).height, transcode(path, 256).width) == (96, 130)


@pytest.mark.parametrize(
    "make, reason",
    [
        (lambda path: path.write_text("hello"), "does not decode"),
        (lambda path: path.write_bytes(b""), "does not decode"),
        (lambda path: videos.truncate(videos.write(path)), "does not decode"),
        (lambda path: videos.truncate(videos.write(path, 120, movflags="faststart"), 0.5), "truncated|does not decode"),
        (lambda path: videos.write_audio(path), "no video stream"),
        (lambda path: videos.write(path, num_frames=1), "a single frame"),
    ],
    ids=["text", "empty", "truncated", "truncated with its index", "audio", "one frame"],
)
def test_what_is_no_video_says_why(tmp_path, make, reason):
    make(tmp_path / "a.mp4")
    with pytest.raises(TranscodeError, match=reason):
        transcode(tmp_path / "a.mp4", 256)
