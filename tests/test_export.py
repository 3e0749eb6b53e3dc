"""What is saved comes back: exported models, workdirs, the command line."""

import json
import sys

import numpy as np
import pytest

import runs
import vivit_jax
from checkpoints import GOLDENS, logits_of, same
from models import ALL, make, video
from vivit_jax.errors import UserError
from vivit_jax.training import loop


@pytest.mark.parametrize("case", ALL)
def test_saved_models_come_back_exactly(case, tmp_path):
    model = make(case, scan=True, stochastic_depth=0.2)
    model.labels = ("a", "b", "c", "d", "e")
    vivit_jax.save_pretrained(model, tmp_path)
    again = vivit_jax.load_model(tmp_path)
    same(model, again)
    assert (again.config, again.preprocessing, again.labels) == (model.config, model.preprocessing, model.labels)
    theirs = {"vivit_ti16x2": "vivit", "timesformer_b": "timesformer", "timesformer_b_joint": "timesformer"}
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == theirs.get(case, "vivit_jax")
    assert sorted(x.name for x in tmp_path.iterdir()) == [
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]


@pytest.mark.parametrize("case", ["vivit_ti16x2", "timesformer_b", "timesformer_b_joint"])
def test_what_transformers_reads_says_everything(case, tmp_path):
    """Without what we keep beside it for ourselves."""
    model = make(case)
    vivit_jax.save_pretrained(model, tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    del values["vivit_jax"]
    (tmp_path / "config.json").write_text(json.dumps(values))
    again = vivit_jax.load_model(tmp_path)
    same(model, again)
    np.testing.assert_allclose(again.preprocessing.mean, model.preprocessing.mean, atol=1e-6)
    np.testing.assert_allclose(logits_of(again, video()), logits_of(model, video()), atol=1e-6)


def test_several_heads_come_back(tmp_path):
    model = make("vivit_ti16x2_fe", {"verb": 7, "noun": 3})
    vivit_jax.save_pretrained(model, tmp_path)
    same(model, vivit_jax.load_model(tmp_path))


def test_a_new_head_has_no_names_of_the_old_one(tmp_path):
    """transformers refuses a directory with more names than classes."""
    model = make("timesformer_b")
    model.labels = ("a", "b", "c", "d", "e")
    vivit_jax.save_pretrained(model, tmp_path / "five")
    again = vivit_jax.load_model(tmp_path / "five", num_classes=3, ignore=("heads",))
    assert again.labels is None and vivit_jax.load_model(tmp_path / "five", num_frames=8).labels == model.labels
    vivit_jax.save_pretrained(again, tmp_path / "three")
    written = json.loads((tmp_path / "three" / "config.json").read_text())
    assert written["id2label"] == {str(n): f"LABEL_{n}" for n in range(3)} and len(written["label2id"]) == 3
    model = make("vivit_ti16x2_fe", {"verb": 2, "noun": 3})
    model.labels = {"verb": ("take", "cut"), "noun": ("tap", "onion", "pan")}
    vivit_jax.save_pretrained(model, tmp_path / "two")
    again = vivit_jax.load_model(tmp_path / "two", num_classes={"verb": 2, "noun": 4}, ignore=("noun",))
    assert again.labels == {"verb": ("take", "cut")}


def test_a_workdir_gives_what_it_would_evaluate(data_dir, tmp_path):
    config = runs.config(data_dir, train__epochs=2.0, train__ema=0.5, train__checkpoint_every=2, train__keep=5)
    loop.train(config, tmp_path)
    latest, first = vivit_jax.load_model(tmp_path), vivit_jax.load_model(tmp_path, step=2)
    assert latest.labels is not None and len(latest.labels) == latest.config.num_classes
    assert np.abs(logits_of(latest, video()) - logits_of(first, video())).max() > 1e-6
    same(vivit_jax.load_model(tmp_path, step="best"), latest)  # the only one that was evaluated
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"step": 5, "train/lo')  # of a run that was killed, or is being read as it writes
    same(vivit_jax.load_model(tmp_path, step="best"), latest)
    (tmp_path / "log.jsonl").write_text('{"step": 2, "validation/top_1": 1.0}\n')
    same(vivit_jax.load_model(tmp_path, step="best"), first)
    config_file, metrics = tmp_path / "config.json", tmp_path / "metrics.json"
    config_file.write_text(config_file.read_text().replace('"validation"', '"test"'))  # as of Diving-48
    with pytest.raises(UserError, match=r"none of its checkpoints .* was evaluated"):
        vivit_jax.load_model(tmp_path, step="best")
    metrics.write_text(metrics.read_text().replace('"validation"', '"test"'))
    same(vivit_jax.load_model(tmp_path, step="best"), latest)
    with pytest.raises(UserError, match="no checkpoint of step 3; its steps are 2, 4"):
        vivit_jax.load_model(tmp_path, step=3)
    vivit_jax.save_pretrained(latest, tmp_path / "exported")
    same(vivit_jax.load_model(tmp_path / "exported"), latest)


def test_the_command_line_converts(tmp_path):
    script = [sys.executable, "scripts/convert_checkpoint.py"]
    done = runs.run([*script, str(GOLDENS / "hf_vivit_dir"), str(tmp_path / "out"), "--field=num_frames=8"])
    assert done.stdout.strip().endswith("joint, 5 classes, 8 frames"), done.stderr
    assert vivit_jax.load_model(tmp_path / "out").config.num_frames == 8
    done = runs.run([*script, str(tmp_path / "nothing"), str(tmp_path / "other")])
    assert "is no file, no directory" in runs.error_line(done) and not (tmp_path / "other").exists()
    assert "SOURCE and TARGET" in runs.error_line(runs.run([*script, str(tmp_path / "out")]))
