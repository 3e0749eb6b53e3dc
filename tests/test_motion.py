import itertools
from pathlib import Path

import av
import numpy as np
import pytest

from vivit_jax.data import motion, motion_files

REPOSITORY = Path(motion.__file__).parents[2]
OPPOSITE = {
    "grow": "shrink",
    "move_down": "move_up",
    "move_right": "move_left",
    "rotate_clockwise": "rotate_counterclockwise",
}
OPPOSITE |= {b: a for a, b in OPPOSITE.items()}


def decode(path: Path) -> np.ndarray:
    with av.open(path) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def relative_files(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in sorted(directory.rglob("*.mp4"))}


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("motion") / "not" / "yet" / "there"
    motion_files.generate(directory, num_train=64, num_validation=16, seed=3, num_workers=2)
    return directory


def test_every_class_has_as_many_videos(videos):
    assert set(OPPOSITE) == set(motion.CLASSES) and list(motion.CLASSES) == sorted(OPPOSITE)
    assert {path.name for path in videos.iterdir()} == {"train", "validation"}
    for split, number in ("train", 8), ("validation", 2):
        counts = {path.name: len(list(path.glob("*.mp4"))) for path in (videos / split).iterdir()}
        assert counts == dict.fromkeys(motion.CLASSES, number)
    assert [path.name for path in videos.parent.iterdir()] == ["there"]  # nothing temporary is left


def test_format(videos):
    with av.open(next(videos.rglob("*.mp4"))) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.average_rate, stream.frames) == ("h264", 25, 23)
        assert (stream.width, stream.height, stream.pix_fmt) == (64, 64, "yuv420p")
        assert len(list(container.decode(stream))) == 23


def test_videos_depend_on_the_seed_alone(videos, tmp_path):
    motion_files.generate(tmp_path / "again", num_train=64, num_validation=16, seed=3, num_workers=3)
    motion_files.generate(tmp_path / "other", num_train=64, num_validation=16, seed=4)
    files, other = relative_files(videos), relative_files(tmp_path / "other")
    assert relative_files(tmp_path / "again") == files
    assert files.keys() == other.keys() and not set(files.values()) & set(other.values())
    assert len(set(files.values())) == 80  # and the splits share no video


def test_each_video_is_the_reverse_of_one_in_the_opposite_class(videos):
    for path in videos.rglob("*.mp4"):
        kind = path.parent.name
        twin = path.parents[1] / OPPOSITE[kind] / path.name.replace(kind, OPPOSITE[kind])
        frames, reverse = decode(path).astype(float), decode(twin).astype(float)
        same = np.abs(frames - reverse[::-1]).mean()
        assert same < 3 and np.abs(frames - reverse).mean() > 3 * same, path


def object_mask(scene: motion.Scene) -> np.ndarray:
    """Where the picture changes when its main object is taken away: bool [T, H, W]."""
    without = motion.draw(scene._replace(sprites=scene.sprites[:-1]))
    return np.abs(motion.draw(scene).astype(int) - without).max(-1) > 12


def polar(image: np.ndarray, center: np.ndarray, unit: float) -> np.ndarray:
    """The picture [H, W, 3] around `center` at radii up to 1.5 `unit`, unrolled clockwise: [radii, 360, 3]."""
    angle, radius = np.radians(np.arange(360)), unit * np.linspace(0.2, 1.5, 12)[:, None]
    y, x = (np.rint(c + radius * f(angle)).astype(int) for c, f in zip(center, (np.sin, np.cos), strict=True))
    return image[np.clip(y, 0, motion.SIZE - 1), np.clip(x, 0, motion.SIZE - 1)]


def turn(before: np.ndarray, after: np.ndarray) -> float:
    """By how many degrees clockwise `before` turned to `after`, both polar: the peak of their circular correlation."""
    spectra = np.fft.fft(after, axis=1) * np.fft.fft(before, axis=1).conj()
    return (np.fft.ifft(spectra, axis=1).real.sum((0, 2)).argmax() + 180) % 360 - 180


def measure(scene: motion.Scene) -> dict[str, float]:
    """From the first frame to the last: shift in pixels, ratio of lengths, clockwise turn in degrees."""
    mask = object_mask(scene)
    area = mask.sum((1, 2))
    center = np.stack([np.argwhere(frame).mean(0) for frame in mask])  # y, x
    cutout, radius = motion.draw(scene) * mask[..., None], np.sqrt(area / np.pi)
    views = [polar(*frame) for frame in zip(cutout, center, radius, strict=True)]
    down, right = center[-1] - center[0]
    turns = [turn(*pair) for pair in itertools.pairwise(views[::2])]
    return {"down": down, "right": right, "growth": radius[-1] / radius[0], "turn": sum(turns)}


STILL = {"down": (-6, 6), "right": (-6, 6), "growth": (0.9, 1.1), "turn": (-50, 50)}
MOVES = {
    "grow": {"growth": (1.7, 2.6)},
    "shrink": {"growth": (1 / 2.6, 1 / 1.7)},
    "move_down": {"down": (16, 33)},
    "move_up": {"down": (-33, -16)},
    "move_right": {"right": (16, 33)},
    "move_left": {"right": (-33, -16)},
    "rotate_clockwise": {"turn": (105, 240)},
    "rotate_counterclockwise": {"turn": (-240, -105)},
}


def scenes(kind: str, number: int = 12) -> list[motion.Scene]:
    return [motion.sample_scene(kind, np.random.default_rng(seed)) for seed in range(number)]


@pytest.mark.parametrize("kind", motion.CLASSES)
def test_object_moves_as_its_class_says_and_hardly_otherwise(kind):
    for scene in scenes(kind):
        for name, value in measure(scene).items():
            low, high = (STILL | MOVES[kind])[name]
            assert low < value < high, (name, value)


@pytest.mark.parametrize("kind", motion.CLASSES)
def test_object_is_whole_clear_and_the_largest(kind):
    for scene in scenes(kind):
        mask, video = object_mask(scene), motion.draw(scene).astype(int)
        assert not any(mask[:, edge].any() or mask[:, :, edge].any() for edge in (0, -1))
        background = motion.draw(scene._replace(sprites=()))
        assert np.abs(video - background).max(-1)[mask].mean() > 100
        for index in range(len(scene.sprites) - 1):
            alone = motion.draw(scene._replace(sprites=scene.sprites[index : index + 1])).astype(int)
            assert (np.abs(alone - background).max(-1) > 12).sum() < 0.6 * mask.sum()


def test_what_is_not_the_motion_has_no_preferred_sign():
    samples = [scene for kind in motion.CLASSES for scene in scenes(kind, 60)]
    drifts = [scene.drift for scene in samples]
    others = [sprite.center[-1] - sprite.center[0] for scene in samples for sprite in scene.sprites[:-1]]
    for velocity in drifts, others:
        for part in np.real(velocity), np.imag(velocity):
            assert abs(part.mean()) < 4 * part.std() / len(part) ** 0.5


def test_background_drifts_by_fractions_of_a_pixel():
    scene = scenes("grow", 1)[0]._replace(sprites=(), drift=2.75 + 5.5j)  # (1/4, 1/2) pixels a frame
    video = motion.draw(scene).astype(int)
    assert np.abs(np.roll(video[0], (2, 1), (0, 1)) - video[4]).max() <= 1  # periodic: what leaves comes in again
    assert np.abs(video[0] - video[1]).max() > 1


def test_render_draws_what_the_generator_says():
    video = motion.render("grow", np.random.default_rng(5))
    assert video.shape == (23, 64, 64, 3) and video.dtype == np.uint8
    np.testing.assert_array_equal(video, motion.render("grow", np.random.default_rng(5)))
    assert (video != motion.render("grow", np.random.default_rng(6))).mean() > 0.5
    with pytest.raises(KeyError, match="jump"):
        motion.render("jump", np.random.default_rng(5))
