"""--mode=probe: how much a checkpoint's features say of a dataset, without training them."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vivit_jax.compiled import keep_compiled
from vivit_jax.config import Config
from vivit_jax.data.datasets import VideoDataset
from vivit_jax.errors import UserError, disk_space
from vivit_jax.evaluation import classifiers
from vivit_jax.evaluation.features import Features, fed_as, load_backbone, say
from vivit_jax.evaluation.multiview import Seen
from vivit_jax.evaluation.scores import Scores, describe
from vivit_jax.files import make_folder, write_json
from vivit_jax.models.initializers import Keys
from vivit_jax.models.video_transformer import VideoTransformer
from vivit_jax.sections_evaluation import Probe
from vivit_jax.training.sharding import check_batch, make_mesh

WITHOUT_BASELINE = (
    "A probe says little by itself: random weights may come close. --config.probe.baseline=true measures them"
)


def probe(config: Config, workdir: Path) -> None:
    """Writes `workdir/probe.json`: classifiers on features of the training split, scored on the evaluation splits.

    Raises:
      UserError: the checkpoint cannot be loaded, the dataset is not there, or too much of it cannot be read.
    """
    settings, source = config.probe, config.probe.checkpoint or str(workdir)
    if not settings.checkpoint and not (workdir / "config.json").exists():
        raise UserError(f"config.probe.checkpoint: is not set, and {workdir} holds no run of its own to probe")
    dataset = VideoDataset(config.data.data_dir, config.data.name)
    for split in (config.data.train_split, *config.evaluation.splits):
        dataset.source(split)
    model = load_backbone(source, settings)
    mesh = make_mesh(config.mesh, config.evaluation.batch_size, model.config)
    check_batch(mesh, "evaluation", config.evaluation.batch_size)
    make_folder(workdir, "--workdir")
    keep_compiled(workdir / "compiled")
    models = {"probe": model}
    if settings.baseline:
        models["random_weights"] = VideoTransformer(model.config, model.preprocessing, Keys(config.seed))
    results: dict[str, Any] = {"checkpoint": source, "dataset": config.data.name, "frames": model.config.num_frames}
    pixels = " x ".join(map(str, model.config.image_size))
    say(
        f"{source}: {model.config.num_frames} frames of {pixels} pixels, made for stride {model.preprocessing.stride:g}"
    )
    with disk_space(lambda: f"--workdir: the disk is full at {workdir}; free some space and start again"):
        for name, one in models.items():
            features = Features(fed_as(config, one), dataset, mesh, one, workdir)
            results[name] = {"sha256": features.digest, **_probe(config, dataset, features, name)}
        if jax.process_index() == 0:
            write_json(workdir / "probe.json", results)
    if not settings.baseline:
        say(WITHOUT_BASELINE)


def _probe(config: Config, dataset: VideoDataset, features: Features, name: str) -> dict[str, Any]:
    """Fits on the training split, a head at a time, and scores all heads together."""
    settings, train = config.probe, features(config.data.train_split)
    counts = dataset.num_classes if isinstance(dataset.num_classes, dict) else {"": dataset.num_classes}
    labels = train.labels if isinstance(train.labels, dict) else {"": train.labels}
    fits = {head: Fitted(train.outputs, labels[head], counts[head], settings, config.seed) for head in counts}
    result: dict[str, Any] = {
        "features": train.outputs.shape[1],
        "train_videos": len(train.paths),
        "heads": {head or "label": one.report for head, one in fits.items()},
    }
    for head, one in fits.items():
        say(f"{name}: {f'{head}, ' if head else ''}l2 {one.l2:g} of {', '.join(f'{x:g}' for x in sorted(settings.l2))}")
    for split in config.evaluation.splits:
        seen = features(split)
        logistic = {head: one.logistic.logits(seen.outputs) for head, one in fits.items()}
        nearest = {head: one.neighbors(seen.outputs) for head, one in fits.items()}
        result[split] = {}
        for kind, found in (("logistic_regression", logistic), ("nearest_neighbors", nearest)):
            metrics = scores(config, seen, found).metrics()
            result[split][kind] = metrics
            say(f"{name}, {kind.replace('_', ' ')}: {describe(split, metrics)}")
    return result


def scores(config: Config, seen: Seen, logits: dict[str, np.ndarray]) -> Scores:
    """As if a model had said them of the views' average."""
    found: Any = {head: x[:, None].astype(np.float32) for head, x in logits.items()}
    views = config.evaluation.clips * config.evaluation.crops
    found = found if isinstance(seen.labels, dict) else found[""]
    return Scores(seen.paths, seen.labels, found, views, "logits", seen.dropped)


class Fitted:
    """The classifiers of one head."""

    def __init__(self, features: np.ndarray, labels: np.ndarray, classes: int, settings: Probe, seed: int):
        """Raises UserError where the training split is too small to hold something out."""
        self.features, self.labels, self.classes, self.settings = features, labels, classes, settings
        held = held_out(labels, settings.holdout, seed)
        if not held.any():
            raise UserError(f"config.probe.holdout: {settings.holdout:g} of {len(labels)} training videos is none")
        self.report: dict[str, Any] = {"held_out_videos": int(held.sum()), "l2": []}
        self._data = jnp.asarray(features), jnp.asarray(labels)
        tried, start = [], None
        for l2 in sorted(settings.l2, reverse=True):  # each starts where the stronger one has ended
            fit = self._fit(~held, l2, start)
            start, correct = (fit.kernel, fit.bias), fit.logits(features[held]).argmax(1) == labels[held]
            tried.append((correct.mean(), l2))
            self.report["l2"].append({"l2": l2, "held_out_top_1": float(correct.mean()), **_facts(fit)})
        self.l2 = max(tried)[1]  # of equals the strongest
        self.logistic = self._fit(np.ones(len(labels), bool), self.l2, start)
        self.report |= {"chosen_l2": self.l2, **_facts(self.logistic)}

    def _fit(self, rows: np.ndarray, l2: float, start: Any) -> classifiers.Logistic:
        options = dict(classes=self.classes, standardize=self.settings.standardize)
        start = start or (jnp.zeros((self.features.shape[1], self.classes)), jnp.zeros(self.classes))
        weight, limit = jnp.asarray(rows, jnp.float32), self.settings.max_iterations
        return classifiers.fit(*self._data, weight, jnp.float32(l2), start=start, max_iterations=limit, **options)

    def neighbors(self, queries: np.ndarray) -> np.ndarray:
        how = self.classes, self.settings.neighbors, self.settings.temperature
        return classifiers.neighbors(self.features, self.labels, queries, *how)


def _facts(fit: classifiers.Logistic) -> dict[str, Any]:
    facts = {"loss": float(fit.loss), "largest_derivative": float(fit.gradient), "iterations": int(fit.iterations)}
    return facts | {"converged": bool(fit.gradient <= 100 * classifiers.TOLERANCE)}


def held_out(labels: np.ndarray, part: float, seed: int) -> np.ndarray:
    """`part` of every class at random, and never all of it: bool [N]."""
    rng, held = np.random.default_rng(seed), np.zeros(len(labels), bool)
    for label in np.unique(labels):
        mine = rng.permutation(np.flatnonzero(labels == label))
        held[mine[: min(round(part * len(mine)), len(mine) - 1)]] = True
    return held
