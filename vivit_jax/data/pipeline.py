"""From an ingested dataset to batches of uint8 clips: Grain over random access, a function of (seed, step) alone."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grain
import jax
import numpy as np
from absl import flags

from vivit_jax.config import Config, Data
from vivit_jax.data import sampling
from vivit_jax.data.decode import DecodeError, decode
from vivit_jax.errors import UserError

Batch = dict[str, np.ndarray]


def _timing(data: Data, example: dict[str, Any]) -> tuple[float, str, str]:
    stride = data.stride or max(example["fps"] / data.target_fps, 1e-6)
    return stride, data.sampling, data.short_clips


def _decode(example: dict[str, Any], indices: np.ndarray, size: tuple[int, int], box: sampling.Box) -> np.ndarray:
    try:
        return decode(example["video"], indices, size=size, box=box)
    except DecodeError as error:
        raise UserError(f"{example['path']}: {error}; the dataset is damaged, ingest it again") from error


@dataclass(frozen=True)
class TrainView(grain.transforms.RandomMap):
    """One random clip, randomly cropped: uint8 [T, h, w, 3]."""

    data: Data
    num_frames: int
    size: tuple[int, int]

    def random_map(self, element: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        timing = _timing(self.data, element)
        indices = sampling.random_clip(element["num_frames"], self.num_frames, *timing, rng)
        area, aspect = self.data.crop_area, self.data.crop_aspect
        box = sampling.random_box(element["height"], element["width"], area, aspect, rng)
        return {"video": _decode(element, indices, self.size, box), "label": np.int32(element["label"])}


@dataclass(frozen=True)
class EvaluationViews(grain.transforms.Map):
    """Every view of a video: uint8 [clips * crops, T, h, w, 3]; `weight` 0 marks padding."""

    source: Any
    data: Data
    num_frames: int
    size: tuple[int, int]
    clips: int
    crops: int

    def map(self, element: int) -> dict[str, Any]:
        if element >= len(self.source):
            shape = (self.clips * self.crops, self.num_frames, *self.size, 3)
            return {"video": np.zeros(shape, np.uint8), "label": np.int32(0), "weight": np.float32(0)}
        example = self.source[element]
        timing = _timing(self.data, example)
        boxes = sampling.view_boxes(example["height"], example["width"], self.data.eval_resize, self.size, self.crops)
        views = [
            _decode(example, indices, self.size, box)
            for indices in sampling.even_clips(example["num_frames"], self.num_frames, *timing, self.clips)
            for box in boxes
        ]
        return {"video": np.stack(views), "label": np.int32(example["label"]), "weight": np.float32(1)}


def _iterate(batches: grain.MapDataset, num_workers: int) -> Iterator[Batch]:
    if not num_workers:
        threads = os.cpu_count() or 1
        return iter(batches.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)))
    if not flags.FLAGS.is_parsed():  # Grain's workers read absl flags; a library has none
        flags.FLAGS.mark_as_parsed()
    options = grain.MultiprocessingOptions(num_workers=num_workers, per_worker_buffer_size=2)
    return iter(batches.to_iter_dataset(grain.ReadOptions(num_threads=1)).mp_prefetch(options))


def _local(section: str, batch_size: int) -> int:
    processes = jax.process_count()
    if batch_size % processes:
        raise UserError(f"config.{section}.batch_size: {batch_size} does not divide over {processes} processes")
    return batch_size // processes


def train_batches(source: Any, config: Config, start: int, stop: int) -> Iterator[Batch]:
    """This process's part of the global batches of steps `start` to `stop` - 1.

    A batch depends on the seed and its step, not on where the iteration started: to resume is to start at a step,
    with any number of decoding workers.

    Yields:
      {"video": uint8 [local batch, T, h, w, 3], "label": int32 [local batch]}
    """
    model = config.model.architecture()
    examples = grain.MapDataset.source(source).seed(config.seed).shuffle().repeat()
    examples = examples.random_map(TrainView(config.data, model.num_frames, model.image_size))
    examples = examples[jax.process_index() :: jax.process_count()]
    batches = examples.batch(_local("train", config.train.batch_size))
    return _iterate(batches[start:stop], config.data.num_workers)


def evaluation_batches(source: Any, config: Config) -> Iterator[Batch]:
    """This process's part of every video once, padded to whole batches, as many for each process.

    Yields:
      {"video": uint8 [local batch, views, T, h, w, 3], "label": int32 [local batch], "weight": float32 [local batch]}
    """
    model, evaluation = config.model.architecture(), config.evaluation
    size = evaluation.batch_size
    views = EvaluationViews(source, config.data, model.num_frames, model.image_size, evaluation.clips, evaluation.crops)
    examples = grain.MapDataset.range(-(-len(source) // size) * size).map(views)
    examples = examples[jax.process_index() :: jax.process_count()]
    return _iterate(examples.batch(_local("evaluation", size)), config.data.num_workers)
