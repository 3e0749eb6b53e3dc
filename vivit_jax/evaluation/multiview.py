"""Evaluation: every video exactly once, its views averaged."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.experimental import multihost_utils

from vivit_jax.config import Config
from vivit_jax.data.augment import normalize, to_float
from vivit_jax.data.pipeline import evaluation_batches
from vivit_jax.errors import device_memory
from vivit_jax.evaluation.scores import Scores
from vivit_jax.evaluation.views import average_views
from vivit_jax.progress import progress
from vivit_jax.training.dropped import Dropped
from vivit_jax.training.sharding import on_mesh, own_rows, replicated, state_sharding, to_devices
from vivit_jax.training.step import count_faults


@dataclass(frozen=True)
class Seen:
    """What a pass over a split has found of the N videos that could be read, the same in every process."""

    paths: np.ndarray  # str [N], in the order of the dataset
    labels: Any  # int32 [N], or by head
    outputs: Any  # arrays [N, ...]
    dropped: int


class Pass:
    """Calls `function(params, video)` on every video of a split exactly once; compiles once.

    The videos are uint8 [B, views, T, h, w, 3], and results arrays [B, ...]. A batch lies on all devices of all
    processes, and each process gets what comes out of all of it.
    """

    def __init__(
        self, config: Config, mesh: jax.sharding.Mesh, params: Any, workdir: Path, function: Callable[[Any, Any], Any]
    ):
        self.config, self.mesh, self.workdir = config, mesh, workdir

        def step(params, batch):
            kept = {"label": batch["label"], "weight": batch["weight"], "dropped": count_faults(batch["fault"])}
            return kept | {"output": function(params, batch["video"])}

        ins = (state_sharding(mesh, params), None)
        self.step = jax.jit(on_mesh(step, mesh), in_shardings=ins, out_shardings=replicated(mesh))

    def __call__(self, params: Any, source: Any, split: str) -> Seen:
        """Raises UserError where more of the videos than `config.data.max_bad_fraction` cannot be read."""
        size, batch_size, paths, parts = len(source), self.config.evaluation.batch_size, [], []
        rows = own_rows(self.mesh, batch_size)
        dropped = Dropped(source, self.config.data.max_bad_fraction, self.workdir, split)
        batches = evaluation_batches(source, self.config, rows)
        for batch in progress(batches, split, -(-size // batch_size), "batches", silent=jax.process_index() > 0):
            paths.append(batch.pop("path"))
            with device_memory(self.too_large):
                parts.append(jax.device_get(self.step(params, to_devices(dropped.note(batch), self.mesh, batch_size))))
            dropped.add(parts[-1].pop("dropped"))
        found = jax.tree.map(lambda *xs: np.concatenate(xs), *parts)
        read = found["weight"] > 0
        if read.sum() + dropped.counts.total() != size:
            raise RuntimeError(f"{split}: saw {read.sum()} of {size} videos, dropped {dropped.counts.total()}")
        labels, outputs = jax.tree.map(lambda x: x[read], (found["label"], found["output"]))
        return Seen(gathered(np.stack(paths), rows.start, batch_size)[read], labels, outputs, dropped.counts.total())

    def too_large(self) -> str:
        """What to say when memory does not suffice for a batch."""
        size, count = self.config.evaluation.batch_size, self.mesh.size
        return f"config.evaluation.batch_size: memory does not suffice for {size} videos (devices: {count}); take fewer"


def gathered(parts: np.ndarray, start: int, batch_size: int) -> np.ndarray:
    """The strings of all batches in order, [batches * B]; each process has its rows, [batches, rows], from `start`."""
    raw = np.char.encode(parts, "utf-8")
    width = int(multihost_utils.process_allgather(np.asarray(raw.dtype.itemsize), tiled=False).max())
    raw = raw.astype(f"S{max(width, 1)}")
    numbers = np.frombuffer(raw.tobytes(), np.uint8).reshape(*raw.shape, -1)
    everything = np.zeros((len(raw), batch_size, numbers.shape[-1]), np.uint8)
    starts, pieces = (multihost_utils.process_allgather(x, tiled=False) for x in (np.asarray(start), numbers))
    shape = (-1, *numbers.shape)
    for at, piece in zip(np.ravel(starts), np.reshape(pieces, shape), strict=True):
        everything[:, at : at + raw.shape[1]] = piece
    flat = everything.reshape(-1, numbers.shape[-1])
    return np.char.decode(flat.view(f"S{flat.shape[-1]}")[:, 0], "utf-8")


def logits_fn(graph: nnx.GraphDef, views_apart: bool, average: str) -> Callable[[Any, jax.Array], Any]:
    """(params, uint8 [B, views, T, h, w, 3]) -> logits [B, views, K], or of their average [B, 1, K], by head."""

    def logits(params, video):
        model, flat = nnx.merge(graph, params), video.reshape(-1, *video.shape[2:])
        found = model(normalize(to_float(flat), model.preprocessing))
        views = jax.tree.map(lambda x: x.reshape(*video.shape[:2], -1), found)
        return views if views_apart else jax.tree.map(lambda x: average_views(x, average)[:, None], views)

    return logits


class Evaluator:
    """Scores parameters on the splits of a dataset; compiles once."""

    def __init__(self, config: Config, graph: nnx.GraphDef, mesh: jax.sharding.Mesh, params: Any, workdir: Path):
        self.evaluation = config.evaluation
        how = self.evaluation.scores == "views", self.evaluation.average
        self.over = Pass(config, mesh, params, workdir, logits_fn(graph, *how))

    def scores(self, params: Any, source: Any, split: str) -> Scores:
        """Of every video of a split that can be read.

        Raises:
          UserError: more of the videos than `config.data.max_bad_fraction` cannot be read.
        """
        seen = self.over(params, source, split)
        views = self.evaluation.clips * self.evaluation.crops
        return Scores(seen.paths, seen.labels, seen.outputs, views, self.evaluation.average, seen.dropped)

    def __call__(self, params: Any, source: Any, split: str) -> dict[str, float]:
        """Their metrics, in parts of 1: those of `metrics.json`."""
        return self.scores(params, source, split).metrics()
