"""Evaluation against a slow and obvious loop, for sets that do not divide."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import runs
from videos import decode
from vivit_jax.data import sampling
from vivit_jax.data.augment import normalize, to_float
from vivit_jax.evaluation.multiview import Evaluator
from vivit_jax.evaluation.views import average_views
from vivit_jax.training.run import open_run


class Part:
    """The first videos of a source."""

    def __init__(self, source, size):
        self.source, self.size = source, size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        assert index < self.size
        return self.source[index]


@pytest.mark.parametrize("size", [1, 15, 16, 23])
@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_every_video_once_whatever_the_size(data_dir, tmp_path, size, average):
    config = runs.config(
        data_dir, evaluation__clips=2, evaluation__crops=3, evaluation__average=average, data__eval_resize=40
    )
    run = open_run(config, tmp_path)
    params = jax.tree.map(
        lambda x: x + 0.2 * jax.random.normal(jax.random.key(x.size), x.shape), run.new_state()["params"]
    )
    source = Part(run.dataset.source("validation"), size)
    found = Evaluator(config, run.graph, run.mesh, params, tmp_path).scores(params, source, "validation")
    metrics = found.metrics()
    model = nnx.merge(run.graph, params)
    classify = jax.jit(lambda clip: model(normalize(to_float(clip), model.preprocessing)))
    scores, labels = [], []
    for index in range(size):
        example, views = source[index], []
        offsets = sampling.clip_offsets(4, 2.0)
        for start in sampling.clip_starts(example["num_frames"], offsets, 2):
            for box in sampling.view_boxes(64, 64, 40, (32, 32), 3):
                views.append(decode(example["video"], start + offsets, size=(32, 32), box=box))
        logits = np.asarray(classify(jnp.asarray(np.stack(views))), np.float64)
        np.testing.assert_allclose(found.logits[index], logits, atol=1e-5)
        assert (found.paths[index], found.labels[index]) == (example["path"], example["label"])
        probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        mean = logits.mean(0) if average == "logits" else np.log(probabilities.mean(0))
        scores.append(mean - np.log(np.exp(mean).sum()))
        labels.append(example["label"])
    scores, labels = np.array(scores), np.array(labels)
    right = scores.argmax(1) == labels
    by_class = [right[labels == label].mean() for label in np.unique(labels)]
    assert metrics["num_videos"] == size and metrics["views"] == 6
    assert metrics["top_1"] == pytest.approx(right.mean())
    in_top_5 = (np.argsort(-scores, 1)[:, :5] == labels[:, None]).any(1)
    assert metrics["top_5"] == pytest.approx(in_top_5.mean())
    assert metrics["mean_class_accuracy"] == pytest.approx(np.mean(by_class))
    assert metrics["loss"] == pytest.approx(-scores[np.arange(size), labels].mean(), abs=1e-5)
    assert metrics["majority_class"] == pytest.approx(np.bincount(labels).max() / size)


def test_views_are_averaged_as_asked():
    logits = jnp.asarray([[[4.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 3.0, 0.0]]])
    np.testing.assert_allclose(average_views(logits, "logits"), [[4 / 3, 2, 0]], atol=1e-6)
    probabilities = np.exp(average_views(logits, "probabilities"))
    np.testing.assert_allclose(probabilities, jax.nn.softmax(logits).mean(1), atol=1e-6)
    np.testing.assert_allclose(probabilities.sum(), 1, atol=1e-6)
