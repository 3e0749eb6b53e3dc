"""Clips read straight into the memory of their batch."""

import abc
import functools
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from grain.python import SharedMemoryArray

from vivit_jax.data import sampling
from vivit_jax.data.decode import FAULTS, DecodeError, decode_crops
from vivit_jax.sections import Data

Batch = dict[str, Any]
Clip = tuple[np.ndarray, list[sampling.Box]]  # frame numbers, and what of the frames is kept: a view for each


@functools.cache
def _threads() -> ThreadPoolExecutor:
    """For the clips of a batch: a thread for each batch would have as many of them in memory as there are cores."""
    return ThreadPoolExecutor(len(os.sched_getaffinity(0)), "decode")


@dataclass(frozen=True)
class Reader(abc.ABC):
    """Makes a batch of drawn videos; what cannot be had is blank, weighs nothing and says why.

    A clip that fails takes no other's place and none takes its: a batch is a function of what was drawn.
    """

    source: Any
    data: Data
    num_frames: int
    size: tuple[int, int]
    shared: bool  # whether the batch is made in memory that processes share
    part: slice  # of a batch, that this process reads

    @abc.abstractmethod
    def choose(self, example: dict[str, Any], seed: int) -> list[Clip]:
        """The clips of a video, each with as many crops as the others."""

    def views(self) -> tuple[int, ...]:
        """How many there are, as axes of the batch."""
        return ()

    def __call__(self, draws: Sequence[dict[str, int]]) -> Batch:
        """Draws are {"index": of the video, "seed": of what is random}; an index beyond the source pads the batch."""
        draws = draws[self.part]
        make = SharedMemoryArray if self.shared else np.empty
        clip = (self.num_frames, *self.size, 3)
        video: Any = make((len(draws), *self.views(), *clip), np.uint8)
        targets = video.reshape(len(draws), -1, *clip)
        each = map if self.shared else _threads().map
        found = list(each(self._read, draws, targets))
        return {"video": video, **jax.tree.map(lambda *leaves: np.stack(leaves), *found)}

    def _read(self, draw: dict[str, int], out: np.ndarray) -> dict[str, Any]:
        example, weight, fault, index = None, 0, 0, draw["index"]
        try:
            if index < len(self.source):
                example = self._record(index)
                clips, sizes = self.choose(example, draw["seed"]), example["frame_sizes"]
                for (frames, boxes), views in zip(clips, out.reshape(len(clips), -1, *out.shape[1:]), strict=True):
                    decode_crops(example["video"], frames, boxes, size=self.size, frame_sizes=sizes, out=views)
                weight = 1
        except DecodeError as error:
            fault = 1 + list(FAULTS).index(error.fault)
        if not weight:
            out[:] = 0
        numbers = {"weight": np.float32(weight), "fault": np.int32(fault), "index": np.int32(index)}
        return {"label": self._label(example), **numbers, **self.also(example)}

    def also(self, example: dict[str, Any] | None) -> dict[str, Any]:
        """What else is said of a video, which may be None where it cannot be had."""
        del example
        return {}

    def _record(self, index: int) -> dict[str, Any]:
        try:
            return self.source[index]
        except Exception as error:  # whatever ArrayRecord, protobuf and file systems raise
            raise DecodeError("unreadable") from error

    def _label(self, example: dict[str, Any] | None) -> Any:
        """int32, or one for each head; 0 where there is no example."""
        if example is not None:
            return jax.tree.map(np.int32, example["label"])
        heads = getattr(self.source, "heads", ())
        return {head: np.int32(0) for head in heads} if len(heads) > 1 else np.int32(0)

    def timing(self, example: dict[str, Any]) -> tuple[float, str, str]:
        data = self.data
        stride = sampling.frames_apart(data.stride, data.target_fps, example["fps"])
        return stride, data.sampling, data.short_clips


@dataclass(frozen=True)
class TrainReader(Reader):
    """One random clip, randomly cropped."""

    def choose(self, example: dict[str, Any], seed: int) -> list[Clip]:
        rng, data, size = np.random.default_rng(seed), self.data, (example["height"], example["width"])
        frames = sampling.random_clip(example["num_frames"], self.num_frames, *self.timing(example), rng)
        if data.crop == "resized":
            return [(frames, [sampling.random_box(*size, data.crop_area, data.crop_aspect, rng)])]
        apart = data.crop == "stretch"
        return [(frames, [sampling.jittered_box(*size, self.size, data.crop_short_side, rng, apart)])]


@dataclass(frozen=True)
class EvaluationReader(Reader):
    """Every view of a video, clip by clip."""

    clips: int
    crops: int
    starts: str

    def views(self) -> tuple[int, ...]:
        return (self.clips * self.crops,)

    def also(self, example: dict[str, Any] | None) -> dict[str, Any]:
        return {"path": np.str_(example["path"] if example else "")}

    def choose(self, example: dict[str, Any], seed: int) -> list[Clip]:
        del seed
        size = example["height"], example["width"]
        boxes = sampling.view_boxes(*size, self.data.eval_resize, self.size, self.crops)
        clips = sampling.even_clips(
            example["num_frames"], self.num_frames, *self.timing(example), self.clips, self.starts
        )
        return [(frames, boxes) for frames in clips]
