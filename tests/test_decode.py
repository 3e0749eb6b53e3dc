"""Re-encoding and random access, frame by frame."""

import io
import struct

import av
import numpy as np
import pytest

import videos
from videos import decode
from vivit_jax.data import decode as decoding
from vivit_jax.data.decode import DecodeError, decode_crops
from vivit_jax.data.transcode import transcode
from vivit_jax.data.video_files import TranscodeError, probe


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return transcode(videos.write(tmp_path_factory.mktemp("v") / "a.mp4", num_frames=70), 256)


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv", ".mov"])
def test_true_counts_whatever_the_container_says(tmp_path, suffix):
    path = videos.write(tmp_path / f"a{suffix}", num_frames=37, fps=30)
    clip = transcode(path, 256)
    assert (clip.num_frames, clip.height, clip.width) == (37, 48, 64) and clip.fps == pytest.approx(30)
    with av.open(str(path)) as container:
        if suffix == ".mkv":
            assert container.streams.video[0].frames == 0  # what the container says
        originals = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    ours = decode(clip.video, np.arange(37))
    assert len(ours) == 37 and np.abs(ours.astype(int) - np.stack(originals)).mean() < 8


def test_any_frame_equals_that_of_a_full_decode(clip):
    whole = decode(clip.video, np.arange(70))
    for index in (0, 1, 31, 32, 33, 63, 64, 69):
        np.testing.assert_array_equal(decode(clip.video, np.array([index]))[0], whole[index])
    some = np.array([40, 3, 3, 69, 40])
    np.testing.assert_array_equal(decode(clip.video, some), whole[some])
    assert np.abs(whole[10].astype(int) - whole[11]).mean() > 5  # neighbors differ: an error by one would show


def test_random_access_needs_no_more_than_one_key_frame_interval(clip):
    with av.open(io.BytesIO(clip.video)) as container:
        assert sum(packet.is_keyframe for packet in container.demux(video=0)) == 3  # at frames 0, 32, 64


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


def test_the_same_video_gives_the_same_bytes(tmp_path):
    path = videos.write(tmp_path / "a.mp4", num_frames=20)
    assert len({transcode(path, 256).video for _ in range(20)}) == 1


def test_a_part_of_a_video(tmp_path):
    path = videos.write(tmp_path / "a.mp4", num_frames=100, fps=25)
    whole, part = transcode(path, 256), transcode(path, 256, seconds=(1.5, 2.3))
    assert part.num_frames == 20 == probe(path, (1.5, 2.3)).num_frames and part.fps == 25
    originals, ours = decode(whole.video, np.arange(38, 58)), decode(part.video, np.arange(20))
    difference = np.abs(originals.astype(int)[:, None] - ours[None]).mean((2, 3, 4))
    assert (difference.argmin(0) == np.arange(20)).all()
    with pytest.raises(TranscodeError, match="no frame decodes"):
        transcode(path, 256, seconds=(50.0, 51.0))


def test_jpeg_storage_gives_the_same_frames(tmp_path):
    path = videos.write(tmp_path / "a.mp4", num_frames=40, height=64, width=96)
    video, jpeg = transcode(path, 48), transcode(path, 48, "jpeg")
    assert (jpeg.num_frames, jpeg.height, jpeg.width, jpeg.fps) == (40, 48, 72, 25.0)
    assert len(jpeg.frame_sizes) == 40 and sum(jpeg.frame_sizes) == len(jpeg.video)
    wanted, how = np.array([31, 2, 2, 17]), dict(size=(40, 30), box=(4.0, 6.0, 40.0, 30.0))
    frames = decode(jpeg.video, wanted, frame_sizes=jpeg.frame_sizes, **how)
    assert frames.shape == (4, 40, 30, 3) and frames.dtype == np.uint8
    assert np.abs(frames.astype(int) - decode(video.video, wanted, **how)).mean() < 6
    with pytest.raises(DecodeError, match="a frame is missing"):
        decode(jpeg.video, np.array([3, 40]), frame_sizes=jpeg.frame_sizes)
    with pytest.raises(DecodeError, match="does not decode"):
        decode(bytes(len(jpeg.video)), np.array([3]), frame_sizes=jpeg.frame_sizes)


@pytest.mark.parametrize("storage", ["h264", "jpeg"])
def test_crops_come_from_one_decoding(tmp_path, monkeypatch, storage):
    clip = transcode(videos.write(tmp_path / "a.mp4", num_frames=40, height=64, width=96), 48, storage)
    wanted, boxes = np.array([7, 31, 7, 2]), [(0.0, 0.0, 40.0, 30.0), (4.0, 21.0, 40.0, 30.0), (8.0, 42.0, 40.0, 30.0)]
    how = dict(size=(20, 15), frame_sizes=clip.frame_sizes)
    each = [decode(clip.video, wanted, box=box, **how) for box in boxes]
    name = "_jpeg_frames" if storage == "jpeg" else "_video_frames"
    decoded, frames = [], getattr(decoding, name)

    def counted(*arguments):
        decoded.append(arguments)
        return frames(*arguments)

    monkeypatch.setattr(decoding, name, counted)
    np.testing.assert_array_equal(decode_crops(clip.video, wanted, boxes, **how), each)
    assert len(decoded) == 1 and not np.array_equal(each[0], each[1])


@pytest.mark.parametrize("pixel_format, color_range", [("yuv420p", 1), ("yuvj420p", 2), ("rgb24", 2)])
def test_colors_survive_whatever_the_file_has_them_in(tmp_path, pixel_format, color_range):
    """Three bands of flat color; a range that is taken for another shifts black and white by 16."""
    colors = np.array([[250, 5, 5], [5, 250, 5], [128, 128, 128], [255, 255, 255], [0, 0, 0]], np.uint8)
    picture = np.repeat(colors, 16, 0)[:, None].repeat(64, 1)
    codec = "png" if pixel_format == "rgb24" else "libx264"
    with av.open(str(tmp_path / "a.mov"), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 80, pixel_format
        if codec == "libx264":
            stream.options = {"crf": "5"}
            stream.codec_context.color_range = color_range
        for _ in range(8):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if codec == "libx264":
                frame = frame.reformat(format=pixel_format, dst_color_range=color_range)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    for storage in ("h264", "jpeg"):
        clip = transcode(tmp_path / "a.mov", 256, storage)
        frame = decode(clip.video, np.array([4]), frame_sizes=clip.frame_sizes)[0].astype(int)
        seen = frame.reshape(5, 16, 64, 3)[:, 5:11, 20:44].mean((1, 2))
        np.testing.assert_allclose(seen, colors.astype(int), atol=7, err_msg=storage)


def test_limits_of_what_is_made(tmp_path, monkeypatch):
    path = videos.write(tmp_path / "a.mp4", num_frames=30)
    for name, value, message in (
        ("video_files.MAX_FRAMES", 29, "more than 29 frames"),
        ("transcode.MAX_BYTES", 1000, "more than 0 MiB, re-encoded"),
        ("video_files.MAX_SIDE", 63, "more than 63 pixels wide or high"),
    ):
        with monkeypatch.context() as patch, pytest.raises(TranscodeError, match=message):
            patch.setattr(f"vivit_jax.data.{name}", value)
            transcode(path, 256, "jpeg")


def test_limits_of_what_is_read(clip, monkeypatch):
    for name, value, message in (("TIME_LIMIT", -1.0, "takes more than"), ("MAX_SIDE", 10, "has more than")):
        with monkeypatch.context() as patch, pytest.raises(DecodeError, match=message):
            patch.setattr(f"vivit_jax.data.decode.{name}", value)
            decode(clip.video, np.array([5]))


@pytest.mark.parametrize("turn, matrix", [(1, (0, 1, -1, 0)), (2, (-1, 0, 0, -1)), (3, (0, -1, 1, 0))])
def test_videos_of_a_turned_camera_come_out_upright(tmp_path, turn, matrix):
    """The matrix in the track's header turns clockwise by quarters, as phones write it."""
    path = videos.write(tmp_path / "a.mp4", num_frames=6)
    with av.open(str(path)) as container:
        picture = next(container.decode(video=0)).to_ndarray(format="rgb24")
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44
    data[at : at + 36] = struct.pack(">9i", *(x << 16 for x in (*matrix[:2], 0, *matrix[2:], 0, 0, 0)), 1 << 30)
    path.write_bytes(data)
    clip = transcode(path, 256)
    upright = np.rot90(picture, -turn)
    assert (clip.height, clip.width) == upright.shape[:2] == (probe(path).height, probe(path).width)
    assert np.abs(decode(clip.video, np.array([0]))[0].astype(int) - upright).mean() < 12
