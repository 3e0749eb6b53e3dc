"""Evaluation: every video exactly once, its views averaged."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from tqdm import tqdm

from vivit_jax.config import Config
from vivit_jax.data.augment import normalize, to_float
from vivit_jax.data.pipeline import evaluation_batches
from vivit_jax.evaluation.views import average_views
from vivit_jax.training.dropped import Dropped
from vivit_jax.training.losses import cross_entropy
from vivit_jax.training.sharding import on_mesh, own_rows, replicated, state_sharding, to_devices
from vivit_jax.training.step import count_faults

Sums = dict[str, Any]


def joint(scores: Any, labels: Any) -> tuple[jax.Array, jax.Array]:
    """Scores and labels of every combination of the heads' classes: an action is a verb with a noun.

    Their scores are added, so that the probabilities are the products. A single head is what it was.
    """
    (total, label), *rest = zip(jax.tree.leaves(scores), jax.tree.leaves(labels), strict=True)
    for other, other_label in rest:
        total = (total[:, :, None] + other[:, None]).reshape(total.shape[0], -1)
        label = label * other.shape[-1] + other_label
    return total, label


def sums_of(scores: jax.Array, labels: jax.Array, weight: jax.Array) -> Sums:
    """Hits of a batch, and videos and hits of each class: [B, K] scores, [B] labels and weights."""
    # The number of classes that score at least as high as the label, it included: ties count against us.
    rank = (scores >= jnp.take_along_axis(scores, labels[:, None], axis=1)).sum(1)
    hits = {f"top_{k}": weight * (rank <= k) for k in (1, 5)}
    by_class = jnp.zeros((2, scores.shape[-1])).at[:, labels].add(jnp.stack([weight, hits["top_1"]]))
    return {name: hit.sum() for name, hit in hits.items()} | {"class_videos": by_class[0], "class_hits": by_class[1]}


def evaluation_step_fn(config: Config, graph: nnx.GraphDef) -> Callable[[Any, dict[str, Any]], Sums]:
    """(params, batch of `evaluation_batches`) -> sums over the batch; what weighs nothing is not among them."""

    def step(params, batch):
        model, video, labels, weight = nnx.merge(graph, params), batch["video"], batch["label"], batch["weight"]
        flat = video.reshape(-1, *video.shape[2:])
        logits = model(normalize(to_float(flat), model.preprocessing))
        views = jax.tree.map(lambda x: x.reshape(*video.shape[:2], -1), logits)
        scores = jax.tree.map(lambda x: average_views(x, config.evaluation.average), views)
        heads = {name: sums_of(scores[name], labels[name], weight) for name in scores if isinstance(scores, dict)}
        return {
            "heads": {"": sums_of(*joint(scores, labels), weight), **heads},
            "loss": (weight * cross_entropy(scores, labels)).sum(),
            "videos": weight.sum(),
            "dropped": count_faults(batch["fault"]),
        }

    return step


def jit_evaluation_step(config: Config, graph: nnx.GraphDef, mesh: jax.sharding.Mesh, params: Any) -> Any:
    """Compiles for the mesh, and parameters that lie on it as in training."""
    ins, step = (state_sharding(mesh, params), None), on_mesh(evaluation_step_fn(config, graph), mesh)
    return jax.jit(step, in_shardings=ins, out_shardings=replicated(mesh))


class Evaluator:
    """Scores parameters on the splits of a dataset; compiles once."""

    def __init__(self, config: Config, graph: nnx.GraphDef, mesh: jax.sharding.Mesh, params: Any, workdir: Path):
        self.config, self.mesh, self.workdir = config, mesh, workdir
        self.step = jit_evaluation_step(config, graph, mesh, params)

    def __call__(self, params: Any, source: Any, split: str) -> dict[str, float]:
        """Metrics of one split, in parts of 1: those of `metrics.json`.

        Raises:
          UserError: more of the videos than `config.data.max_bad_fraction` cannot be read.
        """
        size, evaluation = len(source), self.config.evaluation
        dropped = Dropped(source, self.config.data.max_bad_fraction, self.workdir, split)
        batches = tqdm(
            evaluation_batches(source, self.config, own_rows(self.mesh, evaluation.batch_size)),
            desc=split,
            total=-(-size // evaluation.batch_size),
            disable=jax.process_index() > 0,
            leave=False,
        )
        parts = []
        for batch in batches:
            placed = to_devices(dropped.note(batch), self.mesh, evaluation.batch_size)
            parts.append(jax.device_get(self.step(params, placed)))
            dropped.add(parts[-1]["dropped"])
        total = jax.tree.map(lambda *xs: np.sum(np.stack(xs).astype(np.float64), 0), *parts)
        scored = int(total["videos"])
        if scored + dropped.counts.total() != size:
            raise RuntimeError(f"{split}: scored {scored} of {size} videos, dropped {dropped.counts.total()}")
        heads = {name: _metrics(sums, scored) for name, sums in total["heads"].items()}
        return {
            **heads.pop(""),
            "loss": float(total["loss"] / scored),
            **{f"{head}/{name}": value for head, metrics in heads.items() for name, value in metrics.items()},
            "num_videos": scored,
            "dropped": dropped.counts.total(),
            "views": evaluation.clips * evaluation.crops,
        }


def _metrics(sums: Sums, videos: int) -> dict[str, float]:
    seen = sums["class_videos"] > 0
    return {
        **{name: float(sums[name] / videos) for name in ("top_1", "top_5")},
        "mean_class_accuracy": float(np.mean(sums["class_hits"][seen] / sums["class_videos"][seen])),
        "majority_class": float(sums["class_videos"].max() / videos),  # the accuracy of always saying it
    }


def describe(split: str, metrics: dict[str, float]) -> str:
    """One line for people."""
    heads = [name.removesuffix("/top_1") for name in metrics if name.endswith("/top_1")]
    by_head = "".join(f", {head} {metrics[f'{head}/top_1']:.4f}" for head in heads)
    dropped = f", {metrics['dropped']} more could not be read" if metrics["dropped"] else ""
    return (
        f"{split}: top-1 {metrics['top_1']:.4f}{by_head}, top-5 {metrics['top_5']:.4f}, mean per-class "
        f"{metrics['mean_class_accuracy']:.4f}, loss {metrics['loss']:.4f} on {metrics['num_videos']} videos x "
        f"{metrics['views']} views (always the largest class: {metrics['majority_class']:.4f}){dropped}"
    )
