"""From an ingested dataset to batches of uint8 clips: Grain over random access, a function of (seed, step) alone."""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import grain
import jax
import numpy as np
from absl import flags
from grain.python import SharedMemoryArray

from vivit_jax.config import Config
from vivit_jax.data import sampling
from vivit_jax.data.decode import FAULTS, DecodeError, decode_frames
from vivit_jax.data.workers import end_with_parent
from vivit_jax.errors import UserError
from vivit_jax.sections import Data

Batch = dict[str, Any]
RESTARTS = 3  # of decoding processes that die, until a batch comes out again


@dataclass(frozen=True)
class _Clips:
    """Reads clips of a source; what cannot be had is blank, weighs nothing and says why, and takes nothing's place."""

    source: Any
    data: Data
    num_frames: int
    size: tuple[int, int]

    def _read(self, index: int, choose) -> dict[str, Any]:
        """The frames of all views; `choose(example)` gives the numbers and the crop of each view."""
        example, fault = None, 0
        try:
            if index < len(self.source):  # the rest pads the last batch
                example = _record(self.source, index)
                frames = [x for numbers, box in choose(example) for x in self._decode(example, numbers, box)]
                return self._found(index, example, frames, 1, 0)
        except DecodeError as error:
            fault = 1 + list(FAULTS).index(error.fault)
        return self._found(index, example, [], 0, fault)

    def _found(self, index: int, example: dict[str, Any] | None, frames: list, weight: int, fault: int):
        numbers = {"weight": np.float32(weight), "fault": np.int32(fault), "index": np.int32(index)}
        return {"frames": frames, "label": self._label(example), **numbers}

    def _label(self, example: dict[str, Any] | None) -> Any:
        """int32, or one for each head; 0 where there is no example."""
        if example is not None:
            return jax.tree.map(np.int32, example["label"])
        heads = getattr(self.source, "heads", ())
        return {head: np.int32(0) for head in heads} if len(heads) > 1 else np.int32(0)

    def _decode(self, example: dict[str, Any], frames: np.ndarray, box: sampling.Box) -> list[np.ndarray]:
        sizes = example["frame_sizes"]
        return decode_frames(example["video"], frames, size=self.size, box=box, frame_sizes=sizes)

    def _timing(self, example: dict[str, Any]) -> tuple[float, str, str]:
        data = self.data
        stride = data.stride or max(example["fps"] / data.target_fps, 1e-6)
        return stride, data.sampling, data.short_clips


def _record(source: Any, index: int) -> dict[str, Any]:
    try:
        return source[index]
    except Exception as error:  # whatever ArrayRecord, protobuf and file systems raise
        raise DecodeError("unreadable") from error


@dataclass(frozen=True)
class TrainClips(_Clips, grain.transforms.RandomMap):
    """One random clip, randomly cropped."""

    def random_map(self, element: int, rng: np.random.Generator) -> dict[str, Any]:
        def choose(example):
            timing = self._timing(example)
            frames = sampling.random_clip(example["num_frames"], self.num_frames, *timing, rng)
            return [(frames, self._box(example["height"], example["width"], rng))]

        return self._read(int(element), choose)

    def _box(self, height: int, width: int, rng: np.random.Generator) -> sampling.Box:
        if self.data.crop == "jitter":
            return sampling.jittered_box(height, width, self.size, self.data.crop_short_side, rng)
        return sampling.random_box(height, width, self.data.crop_area, self.data.crop_aspect, rng)


@dataclass(frozen=True)
class EvaluationClips(_Clips, grain.transforms.Map):
    """Every view of a video, clip by clip."""

    clips: int
    crops: int

    def map(self, element: int) -> dict[str, Any]:
        def choose(example):
            size = example["height"], example["width"]
            boxes = sampling.view_boxes(*size, self.data.eval_resize, self.size, self.crops)
            clips = sampling.even_clips(example["num_frames"], self.num_frames, *self._timing(example), self.clips)
            return [(frames, box) for frames in clips for box in boxes]

        return self._read(int(element), choose)


@dataclass(frozen=True)
class _Batch:
    """Puts clips together: every frame is copied once, to where it stays, in memory that processes share if they do."""

    shape: tuple[int, ...]  # of an example's video
    shared: bool

    def __call__(self, examples: Sequence[dict[str, Any]]) -> Batch:
        make = SharedMemoryArray if self.shared else np.empty
        video = make((len(examples), *self.shape), np.uint8)
        for target, example in zip(video.reshape(len(examples), -1, *self.shape[-3:]), examples, strict=True):
            if not example["frames"]:
                target[:] = 0
            for place, frame in zip(target, example.pop("frames"), strict=False):
                place[:] = frame
        return {"video": video, **jax.tree.map(lambda *leaves: np.stack(leaves), *examples)}


def _iterate(batches: grain.MapDataset, num_workers: int) -> Iterator[Batch]:
    if not num_workers:
        threads = len(os.sched_getaffinity(0))
        return iter(batches.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)))
    if not flags.FLAGS.is_parsed():  # Grain's workers read absl flags; a library has none
        flags.FLAGS.mark_as_parsed()
    return _in_processes(batches, num_workers)


def _in_processes(batches: grain.MapDataset, num_workers: int) -> Iterator[Batch]:
    """Batches depend on their number alone, so processes that die are replaced where they stood."""
    options = grain.MultiprocessingOptions(num_workers=num_workers, per_worker_buffer_size=2)
    done, left = 0, RESTARTS
    while True:
        try:
            for batch in (
                batches[done:]
                .to_iter_dataset(grain.ReadOptions(num_threads=1))
                .mp_prefetch(options, worker_init_fn=end_with_parent)
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


def _local(section: str, batch_size: int) -> int:
    processes = jax.process_count()
    if batch_size % processes:
        raise UserError(f"config.{section}.batch_size: {batch_size} does not divide over {processes} processes")
    return batch_size // processes


def train_batches(source: Any, config: Config, start: int, stop: int) -> Iterator[Batch]:
    """This process's part of the global batches of steps `start` to `stop` - 1.

    A batch depends on the seed and its step, not on where the iteration started: to resume is to start at a step,
    with any number of decoding workers and any number of processes.

    Yields:
      {"video": uint8 [local batch, T, h, w, 3], "label": int32 [local batch], or one by head, "weight": float32, 0 for
      a clip that could not be had, "fault": int32, why: 0, or 1 + the number in FAULTS, "index": int32, of the video}
    """
    model = config.model.architecture()
    examples = grain.MapDataset.range(len(source)).seed(config.seed).shuffle().repeat()
    examples = examples.random_map(TrainClips(source, config.data, model.num_frames, model.image_size))
    examples = examples[jax.process_index() :: jax.process_count()]
    together = _Batch((model.num_frames, *model.image_size, 3), config.data.num_workers > 0)
    batches = examples.batch(_local("train", config.train.batch_size), batch_fn=together)
    return _iterate(batches[start:stop], config.data.num_workers)


def evaluation_batches(source: Any, config: Config) -> Iterator[Batch]:
    """This process's part of every video once, padded to whole batches, as many for each process.

    Yields:
      As `train_batches`, with "video": uint8 [local batch, views, T, h, w, 3]; padding weighs nothing and has no fault.
    """
    model, evaluation = config.model.architecture(), config.evaluation
    size = evaluation.batch_size
    views = evaluation.clips, evaluation.crops
    clips = EvaluationClips(source, config.data, model.num_frames, model.image_size, *views)
    examples = grain.MapDataset.range(-(-len(source) // size) * size).map(clips)
    examples = examples[jax.process_index() :: jax.process_count()]
    shape = (evaluation.clips * evaluation.crops, model.num_frames, *model.image_size, 3)
    together = _Batch(shape, config.data.num_workers > 0)
    return _iterate(examples.batch(_local("evaluation", size), batch_fn=together), config.data.num_workers)
