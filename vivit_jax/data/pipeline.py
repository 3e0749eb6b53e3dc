"""From an ingested dataset to batches of uint8 clips: Grain over random access, a function of (seed, step) alone."""

import sys
from collections.abc import Iterator
from typing import Any

import grain
import numpy as np
from absl import flags

from vivit_jax.config import Config
from vivit_jax.data.reading import Batch, EvaluationReader, TrainReader
from vivit_jax.data.workers import start_decoding
from vivit_jax.errors import UserError
from vivit_jax.memory import keep_memory

AHEAD = 2  # batches that wait, where none is decoded by processes: one may be gigabytes, and by default Grain keeps 500
RESTARTS = 3  # of decoding processes that die, until a batch comes out again


class _Draw(grain.transforms.RandomMap):
    """Gives every visit of a video its own seed."""

    def random_map(self, element: int, rng: np.random.Generator) -> dict[str, int]:
        return {"index": int(element), "seed": int(rng.integers(1 << 63))}


def _iterate(batches: grain.MapDataset, num_workers: int) -> Iterator[Batch]:
    if not num_workers:
        keep_memory()
        return iter(batches.to_iter_dataset(grain.ReadOptions(num_threads=AHEAD, prefetch_buffer_size=AHEAD)))
    if not flags.FLAGS.is_parsed():  # Grain's workers read absl flags; a library has none
        flags.FLAGS.mark_as_parsed()
    return _in_processes(batches, num_workers)


def _in_processes(batches: grain.MapDataset, num_workers: int) -> Iterator[Batch]:
    """Batches depend on their number alone, so processes that die are replaced where they stood."""
    options = grain.MultiprocessingOptions(num_workers=num_workers, per_worker_buffer_size=1)
    done, left = 0, RESTARTS
    while True:
        try:
            for batch in (
                batches[done:]
                .to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))
                .mp_prefetch(options, worker_init_fn=start_decoding)
            ):
                yield batch
                done, left = done + 1, RESTARTS
            return
        except RuntimeError as error:
            if "terminated unexpectedly" not in str(error):
                raise
            if not left:
                raise UserError(
                    f"config.data.num_workers: decoding processes died {RESTARTS + 1} times without a batch, perhaps "
                    "for want of memory: take fewer, or a smaller batch"
                ) from error
            left -= 1
            print("A decoding process died; all are started again", file=sys.stderr)


ALL = slice(None)


def train_batches(source: Any, config: Config, start: int, stop: int, rows: slice = ALL) -> Iterator[Batch]:
    """The global batches of steps `start` to `stop` - 1, or those of their `rows` that a process needs.

    A batch depends on the seed and its step, not on where the iteration started: to resume is to start at a step,
    with any number of decoding workers and any number of processes.

    Yields:
      {"video": uint8 [local batch, T, h, w, 3], "label": int32 [local batch], or one by head, "weight": float32, 0 for
      a clip that could not be had, "fault": int32, why: 0, or 1 + the number in FAULTS, "index": int32, of the video}
    """
    model = config.model.architecture()
    batch_size, shared = config.train.batch_size, config.data.num_workers > 0
    read = TrainReader(source, config.data, model.num_frames, model.image_size, shared, rows)
    draws = grain.MapDataset.range(len(source)).seed(config.seed).shuffle().repeat().random_map(_Draw())
    return _iterate(draws.batch(batch_size, batch_fn=read)[start:stop], config.data.num_workers)


def evaluation_batches(source: Any, config: Config, rows: slice = ALL) -> Iterator[Batch]:
    """Every video once, padded to whole global batches, or those of their `rows` that a process needs.

    Yields:
      As `train_batches`, with "video": uint8 [local batch, views, T, h, w, 3] and "path": str [local batch], ""
      where a record cannot be read; padding weighs nothing and has no fault.
    """
    model, evaluation = config.model.architecture(), config.evaluation
    size, shared = evaluation.batch_size, config.data.num_workers > 0
    how = shared, rows, evaluation.clips, evaluation.crops, evaluation.starts
    read = EvaluationReader(source, config.data, model.num_frames, model.image_size, *how)
    draws = grain.MapDataset.range(-(-len(source) // size) * size).map(lambda index: {"index": index, "seed": 0})
    return _iterate(draws.batch(size, batch_fn=read), config.data.num_workers)
