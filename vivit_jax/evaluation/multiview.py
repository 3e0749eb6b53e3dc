"""Evaluation: every video exactly once, its views averaged."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from tqdm import tqdm

from vivit_jax.config import Config
from vivit_jax.data.augment import normalize, to_float
from vivit_jax.data.pipeline import evaluation_batches
from vivit_jax.training.losses import cross_entropy
from vivit_jax.training.sharding import batch_sharding, replicated, state_sharding, to_devices

Sums = dict[str, jax.Array]


def average_views(logits: jax.Array, how: str) -> jax.Array:
    """[B, views, K] logits -> [B, K] log-probabilities or logits, the mean over the views."""
    if how == "logits":
        return logits.mean(1)
    return jax.nn.logsumexp(jax.nn.log_softmax(logits), axis=1) - jnp.log(logits.shape[1])


def evaluation_step_fn(config: Config, graph: nnx.GraphDef) -> Callable[[Any, dict[str, jax.Array]], Sums]:
    """(params, batch of `evaluation_batches`) -> sums over the batch; padding weighs nothing."""

    def step(params, batch):
        model, video = nnx.merge(graph, params), batch["video"]
        flat = video.reshape(-1, *video.shape[2:])
        logits = model(normalize(to_float(flat), model.preprocessing))
        scores = average_views(logits.reshape(*video.shape[:2], -1), config.evaluation.average)
        labels, weight = batch["label"], batch["weight"]
        # The number of classes that score at least as high as the label, it included: ties count against us.
        rank = (scores >= jnp.take_along_axis(scores, labels[:, None], axis=1)).sum(1)
        one_hot = jax.nn.one_hot(labels, scores.shape[-1]) * weight[:, None]
        hits = {f"top_{k}": weight * (rank <= k) for k in (1, 5)}
        return {
            **{name: hit.sum() for name, hit in hits.items()},
            "loss": (weight * cross_entropy(scores, labels)).sum(),
            "videos": weight.sum(),
            "class_videos": one_hot.sum(0),
            "class_hits": (one_hot * hits["top_1"][:, None]).sum(0),
        }

    return step


class Evaluator:
    """Scores parameters on the splits of a dataset; compiles once."""

    def __init__(self, config: Config, graph: nnx.GraphDef, mesh: jax.sharding.Mesh, params: Any):
        self.config, self.mesh = config, mesh
        ins = (state_sharding(mesh, params), batch_sharding(mesh))
        self.step = jax.jit(evaluation_step_fn(config, graph), in_shardings=ins, out_shardings=replicated(mesh))

    def __call__(self, params: Any, source: Any, split: str) -> dict[str, float]:
        """Metrics of one split, in parts of 1: those of `metrics.json`."""
        size, evaluation = len(source), self.config.evaluation
        batches = tqdm(
            evaluation_batches(source, self.config),
            desc=split,
            total=-(-size // evaluation.batch_size),
            disable=jax.process_index() > 0,
            leave=False,
        )
        parts = [jax.device_get(self.step(params, to_devices(batch, self.mesh))) for batch in batches]
        total = jax.tree.map(lambda *xs: np.sum(np.stack(xs).astype(np.float64), 0), *parts)
        if int(total["videos"]) != size:
            raise RuntimeError(f"{split}: scored {int(total['videos'])} of {size} videos")
        seen = total["class_videos"] > 0
        return {
            **{name: float(total[name] / size) for name in ("top_1", "top_5", "loss")},
            "mean_class_accuracy": float(np.mean(total["class_hits"][seen] / total["class_videos"][seen])),
            "majority_class": float(total["class_videos"].max() / size),  # the accuracy of always saying it
            "num_videos": size,
            "views": evaluation.clips * evaluation.crops,
        }


def describe(split: str, metrics: dict[str, float]) -> str:
    """One line for people."""
    return (
        f"{split}: top-1 {metrics['top_1']:.4f}, top-5 {metrics['top_5']:.4f}, mean per-class "
        f"{metrics['mean_class_accuracy']:.4f}, loss {metrics['loss']:.4f} on {metrics['num_videos']} videos x "
        f"{metrics['views']} views (always the largest class: {metrics['majority_class']:.4f})"
    )
