"""Probes: logistic regression beside scikit-learn's, neighbors beside a loop, and the whole command."""

import json
import os
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import runs
import vivit_jax
from models import TINY, make, randomize
from videos import decode
from vivit_jax.data.augment import normalize, to_float
from vivit_jax.data.sampling import even_clips, view_boxes
from vivit_jax.errors import UserError
from vivit_jax.evaluation import classifiers, features
from vivit_jax.evaluation.multiview import Pass, Seen
from vivit_jax.evaluation.probe import Fitted, _probe, held_out, probe
from vivit_jax.sections_evaluation import Probe
from vivit_jax.training.run import open_run
from vivit_jax.training.sharding import make_mesh


def clusters(size=200, width=24, classes=5, seed=0):
    """Classes that overlap, features of other means and deviations, and one that is constant."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, size)
    x = rng.normal(size=(classes, width))[labels] + 2 * rng.normal(size=(size, width))
    x = x * np.geomspace(0.1, 3, width) + rng.normal(size=width)
    x[:, 3] = 0.5
    return x.astype(np.float32), labels


def objective(x, labels, kernel, bias, l2, penalized):
    logits = x.astype(np.float64) @ np.asarray(kernel, np.float64) + np.asarray(bias, np.float64)
    logits -= logits.max(1, keepdims=True)
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(x)), labels]
    return losses.mean() + l2 / 2 * (np.asarray(penalized, np.float64) ** 2).sum()


@pytest.mark.parametrize("standardize", [True, False])
def test_the_optimum_is_scikit_learn_s(standardize):
    linear = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is not installed")
    x, labels = clusters(120, 12)
    rows = np.arange(len(x)) % 4 > 0  # the others weigh nothing
    deviation = x[rows].std(0) if standardize else np.ones(x.shape[1])
    deviation[3] = 1
    start = None
    for l2 in (1.0, 1e-2, 1e-4)[: 3 if standardize else 2]:  # the last takes theirs long
        ours = classifiers.fit(jnp.asarray(x), jnp.asarray(labels), jnp.asarray(rows, jnp.float32), l2, classes=5,
                               standardize=standardize, max_iterations=2000, start=start)  # fmt: skip
        scaled = (x[rows] - x[rows].mean(0)) / deviation
        theirs = linear.LogisticRegression(C=1 / (l2 * rows.sum()), tol=1e-8, max_iter=5000).fit(scaled, labels[rows])
        lowest = objective(scaled, labels[rows], theirs.coef_.T, theirs.intercept_, l2, theirs.coef_)
        found = objective(x[rows], labels[rows], ours.kernel, ours.bias, l2, ours.kernel * deviation[:, None])
        assert found == pytest.approx(lowest, abs=2e-6) and float(ours.loss) == pytest.approx(lowest, abs=2e-6)
        assert float(ours.gradient) <= 1e-5 and int(ours.iterations) < 500
        np.testing.assert_allclose(ours.logits(x).argmax(1), theirs.predict((x - x[rows].mean(0)) / deviation))
        start = ours.kernel, ours.bias


def test_neighbors_against_a_loop():
    x, labels = clusters(60)
    queries, _ = clusters(7, seed=1)
    found = classifiers.neighbors(x, labels, queries, 6, 9, 0.1)
    for query, row in zip(queries, found):
        cosine = x @ query / np.linalg.norm(x, axis=1) / np.linalg.norm(query)
        votes = np.zeros(6)
        for index in np.argsort(-cosine)[:9]:
            votes[labels[index]] += np.exp(cosine[index] / 0.1)
        np.testing.assert_allclose(np.exp(row), votes / votes.sum(), atol=1e-5)


def test_what_is_held_out():
    labels = np.array([0] * 10 + [1] * 5 + [2])
    held = held_out(labels, 0.4, 0)
    assert [held[labels == label].sum() for label in range(3)] == [4, 2, 0]
    assert (held != held_out(labels, 0.4, 1)).any() and (held == held_out(labels, 0.4, 0)).all()
    with pytest.raises(UserError, match=r"config\.probe\.holdout: 0\.2 of 3 training videos is none"):
        Fitted(np.zeros((3, 2), np.float32), np.arange(3), 3, Probe(), 0)


def test_the_strength_is_chosen_on_what_was_held_out():
    x, labels = clusters(160, 12, 4)
    one, held = Fitted(x, labels, 4, Probe(l2=(1e-4, 3.0)), 0), held_out(labels, 0.2, 0)
    how = dict(classes=4, standardize=True, max_iterations=1000)
    for tried in one.report["l2"]:
        fit = classifiers.fit(x, labels, (~held).astype(np.float32), tried["l2"], **how)
        right = fit.logits(x[held]).argmax(1) == labels[held]
        assert 0.2 < right.mean() < 1 and tried["held_out_top_1"] == pytest.approx(right.mean())
    everything = classifiers.fit(x, labels, np.ones(160, np.float32), one.report["chosen_l2"], **how)
    np.testing.assert_allclose(one.logistic.logits(x), everything.logits(x), atol=1e-2)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A model of other frames, pixels and labels than the dataset's."""
    directory = tmp_path_factory.mktemp("checkpoint")
    vivit_jax.save_pretrained(make("timesformer_b", classes=3), directory)
    return directory


def test_features_against_every_video_on_its_own(data_dir, checkpoint, tmp_path):
    """24 videos in batches of 16 over 8 devices, two clips of each; from the file the next time."""
    config = runs.config(data_dir, evaluation__clips=2, data__num_workers=0)
    model = features.load_backbone(checkpoint, Probe())
    run = open_run(config, tmp_path)
    mesh = make_mesh(config.mesh, config.evaluation.batch_size, model.config)
    extract = features.Features(features.fed_as(config, model), run.dataset, mesh, model, tmp_path)
    seen = extract("validation")
    source = run.dataset.source("validation")
    look = nnx.jit(lambda model, clips: model.features(normalize(to_float(clips), model.preprocessing)).mean(0))
    assert seen.outputs.shape == (24, 24) and seen.dropped == 0
    for index in range(0, 24, 5):
        example = source[index]
        (box,) = view_boxes(64, 64, 32, (32, 32), 1)
        clips = [
            decode(example["video"], frames, size=(32, 32), box=box)
            for frames in even_clips(example["num_frames"], 4, 2.0, "strided", "loop", 2)
        ]
        np.testing.assert_allclose(seen.outputs[index], look(model, jnp.asarray(np.stack(clips))), atol=1e-5)
        assert (seen.paths[index], seen.labels[index]) == (example["path"], example["label"])
    (path,) = (tmp_path / "features").iterdir()
    written = path.stat().st_mtime_ns
    extract.over = None  # is not called again
    np.testing.assert_array_equal(extract("validation").outputs, seen.outputs)
    path.write_bytes(path.read_bytes()[:500])  # torn
    extract.over = Pass(extract.config, mesh, extract.params, tmp_path, lambda params, video: video[:, 0, 0, 0, 0])
    assert extract("validation").outputs.shape == (24, 3) and path.stat().st_mtime_ns != written
    assert features.digest(randomize(model, 1)) != extract.digest


def test_the_command_measures_a_checkpoint_and_random_weights(data_dir, checkpoint, tmp_path, capsys):
    flags = [f"--config.probe.checkpoint={checkpoint}", "--config.probe.baseline=true", "--mode=probe"]
    result = runs.run(runs.command(data_dir, tmp_path, *flags))
    assert result.returncode == 0, result.stderr
    found = json.loads((tmp_path / "probe.json").read_text())
    assert "always the largest class: 0.1250" in result.stdout and "on 24 videos x 1 views" in result.stdout
    assert "by itself" not in result.stdout and found["frames"] == 4
    assert found["probe"]["sha256"] != found["random_weights"]["sha256"]
    for name in ("probe", "random_weights"):
        head = found[name]["heads"]["label"]
        best = max(head["l2"], key=lambda tried: (tried["held_out_top_1"], tried["l2"]))
        assert head["chosen_l2"] == best["l2"] and head["held_out_videos"] == 8 and head["converged"]
        for kind in ("logistic_regression", "nearest_neighbors"):
            assert found[name]["validation"][kind]["num_videos"] == 24
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "features").iterdir()}
    assert len(before) == 4
    probe(runs.config(data_dir, probe__checkpoint=str(checkpoint), probe__neighbors=3), tmp_path)
    assert "A probe says little by itself" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "features").iterdir()}
    known = json.loads((tmp_path / "probe.json").read_text())["probe"]
    ours, theirs = (of["validation"]["logistic_regression"] for of in (known, found["probe"]))
    assert ours == pytest.approx(theirs, abs=1e-4)


def test_an_image_model_sees_frames_alone(data_dir, tmp_path):
    image = randomize(vivit_jax.create_model("vivit_ti16x2", 11, **TINY | dict(num_frames=1, tubelet_size=1)))
    vivit_jax.save_pretrained(image, tmp_path / "image")
    model = features.load_backbone(tmp_path / "image", Probe(num_frames=4))
    still = jax.random.normal(jax.random.key(0), (2, 1, 32, 32, 3))
    look = nnx.jit(lambda model, video: model.features(video))
    np.testing.assert_allclose(look(model, jnp.repeat(still, 4, axis=1)), look(image, still), atol=1e-5)
    assert features.load_backbone(tmp_path / "image", Probe()).config.num_frames == 8


def test_several_heads_are_probed_each_and_together(tmp_path):
    x, labels = clusters(120, classes=6)
    heads = {"noun": labels % 3, "verb": labels // 3}
    parts = {"train": slice(0, 90), "validation": slice(90, 120)}

    def extract(split):
        of = {head: values[parts[split]].astype(np.int32) for head, values in heads.items()}
        return Seen(np.arange(120).astype(str)[parts[split]], of, x[parts[split]], 0)

    dataset = SimpleNamespace(num_classes={"noun": 3, "verb": 2})
    result = _probe(runs.config(tmp_path), dataset, extract, "probe")
    metrics = result["validation"]["logistic_regression"]
    assert set(result["heads"]) == {"noun", "verb"}
    assert metrics["top_1"] <= min(metrics["noun/top_1"], metrics["verb/top_1"]) and metrics["verb/top_1"] > 0.5


def test_there_has_to_be_something_to_probe(data_dir, tmp_path):
    with pytest.raises(UserError, match=r"config\.probe\.checkpoint: is not set, and .* holds no run"):
        probe(runs.config(data_dir), tmp_path)
    with pytest.raises(UserError, match=r"config\.probe\.l2: \(0\.0,\) takes numbers above 0"):
        runs.config(data_dir, probe__l2=(0.0,))
    assert os.listdir(tmp_path) == []
