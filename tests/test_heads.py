"""Labels of several heads, from the dataset to the loss, the metrics and the checkpoint."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import log_softmax

import miniatures
import runs
import vivit_jax
from vivit_jax.data.augment import normalize, to_float
from vivit_jax.data.mixing import mix
from vivit_jax.data.pipeline import evaluation_batches
from vivit_jax.errors import UserError
from vivit_jax.evaluation.scores import joint, sums_of
from vivit_jax.ingest import ingest
from vivit_jax.sections import Augment
from vivit_jax.training import loop
from vivit_jax.training.losses import all_right, cross_entropy
from vivit_jax.training.run import open_run

GOLDEN = dict(np.load(Path(__file__).parent / "goldens" / "train_utils.npz"))


def golden() -> tuple[dict, dict]:
    """Logits and labels of two heads, of 4 and 3 classes."""
    logits, labels = GOLDEN["multihead_logits"], GOLDEN["multihead_onehot_4_3"]
    split = {"first": slice(0, 4), "second": slice(4, 7)}
    return (
        {head: jnp.asarray(logits[:, part]) for head, part in split.items()},
        {head: jnp.asarray(labels[:, part].argmax(1)) for head, part in split.items()},
    )


def test_the_loss_is_scenic_s():
    logits, labels = golden()
    losses, mask = cross_entropy(logits, labels, 0.2), GOLDEN["batch_mask"]
    assert float((losses * mask).sum() / mask.sum()) == pytest.approx(float(GOLDEN["multihead_loss_ls0.2"]), abs=1e-5)
    one_hot = jax.tree.map(lambda x, y: jax.nn.one_hot(y, x.shape[1]), logits, labels)
    np.testing.assert_allclose(cross_entropy(logits, one_hot, 0.2), losses, atol=1e-6)


def test_joint_accuracy_is_scenic_s():
    logits, labels = golden()
    scores, label = joint(jax.tree.map(jax.nn.log_softmax, logits), labels)
    np.testing.assert_allclose(np.exp(scores), GOLDEN["joint_logits"], atol=1e-6)
    np.testing.assert_array_equal(label, GOLDEN["joint_labels"].argmax(1))
    mask = GOLDEN["batch_mask"]
    sums = sums_of(scores, label, jnp.asarray(mask))
    assert float(sums["top_1"]) == GOLDEN["joint_accuracy"].sum() == (mask * all_right(logits, labels)).sum()
    assert float(sums["top_5"]) == GOLDEN["joint_top5"].sum()


def test_sums_against_a_loop():
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(40, 7)), rng.integers(0, 7, 40)
    weight = rng.integers(0, 2, 40).astype(np.float32)
    sums = sums_of(jnp.asarray(scores), jnp.asarray(labels), jnp.asarray(weight))
    for k in (1, 5):
        hits = [w * (label in np.argsort(-row)[:k]) for row, label, w in zip(scores, labels, weight)]
        assert float(sums[f"top_{k}"]) == sum(hits)
    for label in range(7):
        right = weight * (labels == label) * (scores.argmax(1) == label)
        assert float(sums["class_videos"][label]) == weight[labels == label].sum()
        assert float(sums["class_hits"][label]) == right.sum()


@pytest.mark.parametrize("augment", [Augment(mixup=0.4), Augment(cutmix=1.0)])
def test_heads_mix_alike(augment):
    video = jax.random.uniform(jax.random.key(0), (6, 2, 8, 8, 3))
    targets = {head: jax.nn.one_hot(jnp.arange(6) % n, n) for head, n in (("verb", 4), ("noun", 5))}
    mixed, labels = mix(video, targets, jax.random.key(1), augment)
    for head in targets:
        alone, label = mix(video, targets[head], jax.random.key(1), augment)
        np.testing.assert_array_equal(alone, mixed)
        np.testing.assert_array_equal(label, labels[head])


@pytest.fixture(scope="module")
def kitchens(tmp_path_factory):
    """An ingested miniature: 3 training segments, 1 for validation; 2 verbs, 3 nouns."""
    folder = tmp_path_factory.mktemp("kitchens")
    miniatures.epic_kitchens100(folder / "manual")
    name = "epic_kitchens100"
    ingest(folder / "manual", name, folder / "data", layout=name, num_workers=1)
    return folder / "data"


def config(kitchens, **changes):
    small = dict(data__name="epic_kitchens100", train__batch_size=8, evaluation__batch_size=8, train__epochs=40.0)
    return runs.config(kitchens, **(small | changes))


def test_two_heads_are_trained_evaluated_and_exported(kitchens, tmp_path):
    mixed = dict(augment__mixup=0.2, train__label_smoothing=0.1, evaluation__splits=("validation", "train"))
    settings = config(kitchens, train__accumulate=1, **mixed)
    loop.train(settings, tmp_path / "run")
    lines, metrics = runs.log(tmp_path / "run"), runs.metrics(tmp_path / "run")
    assert lines[-1]["train/loss"] < lines[0]["train/loss"]
    assert metrics["validation"]["num_videos"] == 1 and metrics["train"]["num_videos"] == 3
    model = vivit_jax.load_model(tmp_path / "run")
    classify = nnx.jit(lambda model, video: model(normalize(to_float(video), model.preprocessing)))
    assert model.config.heads == {"noun": 3, "verb": 2}
    assert model.labels == {"noun": ("tap", "onion", "pan"), "verb": ("take", "cut")}
    # Against every video on its own.
    run = open_run(settings, tmp_path / "run")
    right, losses = {"verb": [], "noun": []}, []
    for batch in evaluation_batches(run.dataset.source("train"), settings):
        for video, weight, *labels in zip(
            batch["video"], batch["weight"], batch["label"]["verb"], batch["label"]["noun"]
        ):
            if weight:
                logits = classify(model, jnp.asarray(video))
                for head, label in zip(("verb", "noun"), labels):
                    right[head].append(int(logits[head][0].argmax()) == label)
                losses.append(np.mean([-log_softmax(logits[h][0])[y] for h, y in zip(("verb", "noun"), labels)]))
    assert metrics["train"]["top_1"] == pytest.approx(np.mean(np.array(right["verb"]) & np.array(right["noun"])))
    for head in right:
        assert metrics["train"][f"{head}/top_1"] == pytest.approx(np.mean(right[head]))
    assert metrics["train"]["loss"] == pytest.approx(np.mean(losses), abs=1e-4)
    vivit_jax.save_pretrained(model, tmp_path / "exported")
    assert vivit_jax.load_model(tmp_path / "exported").labels == model.labels


def test_heads_have_to_be_the_dataset_s(kitchens, tmp_path):
    message = "config.model.num_classes: noun 3, verb 5, but 'epic_kitchens100' has noun 3, verb 2"
    with pytest.raises(UserError, match=message):
        open_run(config(kitchens, model__num_classes={"verb": 5, "noun": 3}), tmp_path)
    open_run(config(kitchens, model__num_classes={"verb": 2, "noun": 3}), tmp_path)
