"""The contact sheet shows what the train step is given; flips know left from right."""

import jax.numpy as jnp
import matplotlib.image
import numpy as np
import pytest

import runs
from vivit_jax.data.augment import augment_batch
from vivit_jax.data.pipeline import train_batches
from vivit_jax.sections import Augment
from vivit_jax.training import contact_sheet
from vivit_jax.training.run import flip_probability, open_run


class Seen(Exception):
    """What was looked for."""


def test_the_command_draws_a_batch(data_dir, tmp_path):
    flags = ["--mode=inspect", "--config.augment.mixup=0.5"]
    result = runs.run(runs.command(data_dir, tmp_path, *flags))
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == f"8 clips of the first batch of 16 -> {tmp_path / 'inspect.png'}"
    picture = matplotlib.image.imread(tmp_path / "inspect.png")
    height, width, _ = picture.shape
    assert height > 1000 and width > 500
    # Four columns of frames, every one a picture of many colors.
    for column in range(4):
        part = picture[:, column * width // 4 : (column + 1) * width // 4, :3].reshape(-1, 3)
        assert len(np.unique((part * 255).astype(int), axis=0)) > 500
    assert [path.name for path in tmp_path.iterdir()] == ["inspect.png"]


def test_what_is_drawn_is_what_the_step_is_given(data_dir, tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(contact_sheet, "_draw", lambda video, titles, path: drawn.update(video=video, titles=titles))
    given = {}

    def noted(batch, key, augment, classes):
        given["video"], given["target"] = augment_batch(batch, key, augment, classes)
        raise Seen

    config = runs.config(data_dir, augment__cutmix=1.0)
    contact_sheet.inspect(config, tmp_path)
    monkeypatch.setattr("vivit_jax.training.step.augment_batch", noted)
    from vivit_jax.training.step import train_step_fn

    run = open_run(config, tmp_path)
    step = train_step_fn(run.config, run.graph, run.preprocessing, run.optimizer, run.schedule)
    batch = next(iter(train_batches(run.dataset.source("train"), run.config, 0, 1)))
    with pytest.raises(Seen):
        step(
            {"step": 0, "params": {"heads": {"head": {"bias": np.zeros(8)}}}},
            {key: jnp.asarray(np.array(x)) for key, x in batch.items() if key != "index"},
        )
    np.testing.assert_allclose(drawn["video"], given["video"][:8], atol=1e-6)
    for title, target in zip(drawn["titles"], np.asarray(given["target"])):
        largest = run.dataset.class_names[int(target.argmax())]
        assert title.startswith(f"{target.max():.2f} {largest}") and title.count("+") == (target > 0.005).sum() - 1


def test_titles():
    assert contact_sheet._title(np.int32(1), ("a", "b"), 0) == "b"
    assert contact_sheet._title(np.array([0.3, 0.7, 0.0]), ("a", "b", "c"), 0) == "0.70 b + 0.30 a"
    names, target = {"noun": ("tap", "pan"), "verb": ("cut",)}, {"noun": np.int32(1), "verb": np.int32(0)}
    assert contact_sheet._title(target, names, 0) == "noun: pan\nverb: cut"
    assert contact_sheet._title(np.int32(1), ("a", "b"), 3) == "dropped: a frame is missing"


@pytest.mark.parametrize(
    "names, probability",
    [
        (("Pushing something from left to right", "Holding something"), 0.0),
        ({"verb": ("turn_left", "cut"), "noun": ("pan",)}, 0.0),
        (("TurnLeft", "ApplyEyeMakeup"), 0.0),
        (("cleft", "bright", "Uprighting", "BrightCleft"), 0.5),
    ],
)
def test_clips_are_not_flipped_where_classes_speak_of_sides(names, probability, capsys):
    class Named:
        class_names = names

    assert flip_probability(Augment(), Named) == probability
    out = capsys.readouterr().out
    assert ("speak of left or right" in out and "config.augment.flip" in out) == (probability == 0.0)
    assert flip_probability(Augment(flip=0.25), Named) == 0.25
