"""What a model said of every video of a split: metrics of it, now or later from a file."""

import zipfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vivit_jax.architecture import Labels
from vivit_jax.errors import UserError, first_line
from vivit_jax.evaluation.views import average_views
from vivit_jax.files import replacing
from vivit_jax.training.losses import cross_entropy

Sums = dict[str, Any]
AVERAGES = ("probabilities", "logits")
CHUNK = 256  # videos that metrics are computed of at once


def joint(scores: Any, labels: Any) -> tuple[jax.Array, jax.Array]:
    """Scores and labels of every combination of the heads' classes: an action is a verb with a noun.

    Their scores are added, so that the probabilities are the products. A single head is what it was.
    """
    (total, label), *rest = zip(jax.tree.leaves(scores), jax.tree.leaves(labels), strict=True)
    for other, other_label in rest:
        total = (total[:, :, None] + other[:, None]).reshape(total.shape[0], -1)
        label = label * other.shape[-1] + other_label
    return total, label


def ranks(scores: jax.Array, labels: jax.Array) -> jax.Array:
    """The number of classes that score at least as high as the label, it included: ties count against us, and so do
    scores that are no numbers."""
    return (~(scores < jnp.take_along_axis(scores, labels[:, None], axis=1))).sum(1)


def sums_of(scores: jax.Array, labels: jax.Array, weight: jax.Array) -> Sums:
    """Hits of a batch, and videos and hits of each class: [B, K] scores, [B] labels and weights."""
    rank = ranks(scores, labels)
    hits = {f"top_{k}": weight * (rank <= k) for k in (1, 5)}
    by_class = jnp.zeros((2, scores.shape[-1])).at[:, labels].add(jnp.stack([weight, hits["top_1"]]))
    return {name: hit.sum() for name, hit in hits.items()} | {"class_videos": by_class[0], "class_hits": by_class[1]}


@partial(jax.jit, static_argnames="average")
def _chunk_sums(logits: Any, labels: Any, weight: jax.Array, average: str) -> Sums:
    scores = jax.tree.map(lambda x: average_views(x, average), logits)
    heads = {name: sums_of(scores[name], labels[name], weight) for name in scores if isinstance(scores, dict)}
    loss = (weight * cross_entropy(scores, labels)).sum()
    return {"heads": {"": sums_of(*joint(scores, labels), weight), **heads}, "loss": loss}


def _metrics(sums: Sums, videos: int) -> dict[str, float]:
    seen = sums["class_videos"] > 0
    return {
        **{name: float(sums[name] / videos) for name in ("top_1", "top_5")},
        "mean_class_accuracy": float(np.mean(sums["class_hits"][seen] / sums["class_videos"][seen])),
        "majority_class": float(sums["class_videos"].max() / videos),  # the accuracy of always saying it
    }


@dataclass(frozen=True)
class Scores:
    """The N videos of a split that could be read; with several heads, labels and logits are dicts by head."""

    paths: np.ndarray  # str [N], in the order of the dataset
    labels: Any  # int32 [N]
    logits: Any  # float32 [N, views, K], or [N, 1, K] of which the views are averaged already
    views: int
    average: str  # over the views: one of AVERAGES
    dropped: int = 0  # videos that could not be read

    def averaged(self) -> Any:
        """Log-probabilities or logits [N, K], as `average` has it."""
        return jax.tree.map(lambda x: np.asarray(average_views(jnp.asarray(x), self.average)), self.logits)

    def metrics(self) -> dict[str, float]:
        """Those of `metrics.json`, in parts of 1."""
        size, parts = len(self.paths), []
        for start in range(0, size, CHUNK):
            part = slice(start, start + CHUNK)
            weight = _padded(np.ones(len(self.paths[part]), np.float32))
            logits, labels = jax.tree.map(lambda x, part=part: _padded(x[part]), (self.logits, self.labels))
            parts.append(jax.device_get(_chunk_sums(logits, labels, weight, self.average)))
        total = jax.tree.map(lambda *xs: np.sum(np.stack(xs).astype(np.float64), 0), *parts)
        heads = {name: _metrics(sums, size) for name, sums in total["heads"].items()}
        return {
            **heads.pop(""),
            "loss": float(total["loss"] / size),
            **{f"{head}/{name}": value for head, metrics in heads.items() for name, value in metrics.items()},
            "num_videos": size,
            "dropped": self.dropped,
            "views": self.views,
        }

    def rescored(self, average: str | None = None, heads: tuple[str, ...] = ()) -> "Scores":
        """The same views averaged in another way, or some of the heads alone.

        Raises:
          UserError: there is no such average or head, or the views were averaged before they were kept.
        """
        average = average or self.average
        if average not in AVERAGES:
            raise UserError(f"average: {average!r} is none of {', '.join(AVERAGES)}")
        if average != self.average and jax.tree.leaves(self.logits)[0].shape[1] != self.views:
            raise UserError(f"average: the views were averaged by {self.average}; evaluate with scores='views'")
        labels, logits = self.labels, self.logits
        if heads:
            there = sorted(logits) if isinstance(logits, dict) else []
            if missing := [head for head in heads if head not in there]:
                raise UserError(f"heads: there is no {missing[0]!r}, only {', '.join(there) or 'a single one'}")
            labels, logits = ({head: of[head] for head in heads} for of in (labels, logits))
        return replace(self, labels=labels, logits=logits, average=average)

    def save(self, path: Path, class_names: Labels) -> None:
        """An .npz of plain arrays: path, label, logits and classes (of several heads label/HEAD ...), views, ..."""
        names = jax.tree.map(np.asarray, class_names, is_leaf=lambda x: isinstance(x, tuple))
        arrays: dict[str, Any] = named("label", self.labels) | named("logits", self.logits) | named("classes", names)
        arrays |= {name: np.asarray(getattr(self, name)) for name in ("views", "average", "dropped")}
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, path=self.paths, **arrays)


def load_scores(path: str | Path) -> Scores:
    """Reads what `Scores.save` has written.

    Raises:
      UserError: the file is not there, not whole, or another's.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        labels, logits = (by_head(name, arrays) for name in ("label", "logits"))
        numbers = int(arrays["views"]), str(arrays["average"]), int(arrays["dropped"])
        return Scores(arrays["path"], labels, logits, *numbers)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({first_line(error)})") from error
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:  # numpy takes what is no archive for a pickle
        raise UserError(f"{path}: is no whole file of scores, such as an evaluation writes") from error


def named(name: str, values: Any) -> dict[str, np.ndarray]:
    """Arrays as a file has them: `label`, or `label/verb` and `label/noun`."""
    return {f"{name}/{head}": x for head, x in values.items()} if isinstance(values, dict) else {name: values}


def by_head(name: str, arrays: dict[str, np.ndarray]) -> Any:
    """The inverse of `named`."""
    heads = {key.removeprefix(f"{name}/"): x for key, x in arrays.items() if key.startswith(f"{name}/")}
    return heads or arrays[name]


def _padded(x: np.ndarray) -> np.ndarray:
    return np.concatenate([x, np.zeros((CHUNK - len(x), *x.shape[1:]), x.dtype)])


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
