"""--mode=evaluate --checkpoint: any checkpoint with its own head, its classes put in the dataset's order."""

import json

import numpy as np
import pytest

import runs
import vivit_jax
from vivit_jax.errors import UserError
from vivit_jax.evaluation.evaluate import evaluate_checkpoint
from vivit_jax.evaluation.scores import load_scores
from vivit_jax.models.video_transformer import VideoTransformer
from vivit_jax.training import loop


@pytest.fixture(scope="module")
def trained(data_dir, tmp_path_factory):
    """(configuration, workdir of a run with random parameters that was evaluated)"""
    config, workdir = runs.config(data_dir, evaluation__clips=2), tmp_path_factory.mktemp("run")
    runs.untrained(config, workdir)
    loop.evaluate(config, workdir)
    return config, workdir


def saved(workdir, directory, labels) -> str:
    """The run's model with its classes backwards, under names of its own."""
    model: VideoTransformer = vivit_jax.load_model(workdir)
    head = model.heads["head"]
    head.kernel[...], head.bias[...] = head.kernel[...][:, ::-1], head.bias[...][::-1]
    model.labels = tuple(labels(model.labels)[::-1])
    vivit_jax.save_pretrained(model, directory)
    return str(directory)


def test_classes_are_found_by_their_names(trained, tmp_path, capsys):
    config, workdir = trained
    source = saved(workdir, tmp_path / "saved", lambda names: [name.upper().replace("_", " ") for name in names])
    evaluate_checkpoint(config, source, tmp_path / "out")
    ours, theirs = (load_scores(where / "scores_validation.npz") for where in (tmp_path / "out", workdir))
    assert list(ours.paths) == list(theirs.paths) and "taken to be" not in capsys.readouterr().out
    np.testing.assert_allclose(ours.logits, theirs.logits, atol=1e-5)
    found = runs.metrics(tmp_path / "out")
    assert found["checkpoint"] == source and "step" not in found
    assert found["validation"] == pytest.approx(runs.metrics(workdir)["validation"], abs=1e-5)


def test_unknown_names_are_taken_by_number(trained, tmp_path, capsys):
    config, workdir = trained
    source = saved(workdir, tmp_path / "saved", lambda names: [f"LABEL_{i}" for i in range(len(names))])
    evaluate_checkpoint(config, source, tmp_path / "out")
    assert "taken to be in the dataset's order, since 8 of 8 names" in capsys.readouterr().out
    ours, theirs = (load_scores(where / "scores_validation.npz") for where in (tmp_path / "out", workdir))
    np.testing.assert_allclose(ours.logits, theirs.logits[..., ::-1], atol=1e-5)


def test_other_classes_are_an_error(data_dir, tmp_path):
    model = vivit_jax.create_model("vivit_ti16x2", 5, num_frames=4, image_size=32, num_layers=1)
    vivit_jax.save_pretrained(model, tmp_path / "saved")
    with pytest.raises(UserError, match=r"knows .*5.* classes, 'tiny' has .*8"):
        evaluate_checkpoint(runs.config(data_dir), str(tmp_path / "saved"), tmp_path / "out")


def test_a_run_is_not_written_over(trained):
    config, workdir = trained
    before = json.dumps(runs.metrics(workdir))
    with pytest.raises(UserError, match="holds a run; give --checkpoint another"):
        evaluate_checkpoint(config, str(workdir), workdir)
    assert json.dumps(runs.metrics(workdir)) == before


def test_training_takes_no_checkpoint_flag(data_dir, tmp_path):
    failed = runs.run(runs.command(data_dir, tmp_path, "--checkpoint=somewhere"))
    assert "--checkpoint: is not for --mode=train; config.init_from starts a run" in runs.error_line(failed)
