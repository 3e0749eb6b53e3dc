"""Features of every video of a split, computed once and kept."""

import dataclasses
import hashlib
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.experimental import multihost_utils

from vivit_jax.checkpoints.conversion import Checkpoint
from vivit_jax.checkpoints.parameters import abstract_model, filled, paths
from vivit_jax.checkpoints.pretrained import load_model
from vivit_jax.config import Config
from vivit_jax.data.augment import normalize, to_float
from vivit_jax.data.datasets import VideoDataset
from vivit_jax.evaluation.multiview import Pass, Seen
from vivit_jax.evaluation.scores import by_head, named
from vivit_jax.files import replacing
from vivit_jax.models.video_transformer import VideoTransformer
from vivit_jax.sections import Model
from vivit_jax.sections_evaluation import Probe
from vivit_jax.training.sharding import state_sharding

IMAGE_FRAMES = 8  # that an image model sees of a video, unless it is told otherwise


def say(line: str) -> None:
    """Once, of all processes."""
    if jax.process_index() == 0:
        print(line)


def load_backbone(source: str | Path, probe: Probe) -> VideoTransformer:
    """A checkpoint's model as it is; of an image model, one that sees frames alone and averages them."""
    fields: dict[str, Any] = {"image_size": probe.image_size} if probe.image_size else {}
    frames = probe.num_frames
    model = load_model(source, ignore=("heads",), **fields)
    if model.config.num_frames > 1:
        return load_model(source, ignore=("heads",), num_frames=frames, **fields) if frames else model
    frames = frames or IMAGE_FRAMES
    config = dataclasses.replace(model.config, num_frames=frames, attention="space", positions="space")
    fed = dataclasses.replace(model.preprocessing, num_frames=frames)
    return filled(abstract_model(config, Checkpoint(str(source), config, fed, None, (), {})), paths(model))


def fed_as(config: Config, model: VideoTransformer) -> Config:
    """The configuration with the frames and pixels of `model`, of which every field is told."""
    fields = dataclasses.asdict(model.config)
    return dataclasses.replace(config, model=Model(config.model.name, fields))


def digest(model: VideoTransformer) -> str:
    """SHA-256 of what features are a function of, whatever file it is in: parameters, architecture, preprocessing."""
    found = hashlib.sha256(repr((model.config, model.preprocessing)).encode())
    for path, value in sorted(paths(model).items()):
        if not path.startswith("heads/"):
            found.update(path.encode() + np.ascontiguousarray(value).data)
    return found.hexdigest()


def _data_digest(config: Config, dataset: VideoDataset, split: str) -> str:
    """Of the files of a split, by name, size and time, and of which frames and pixels of it are seen."""
    files = sorted(path for path in dataset.path.iterdir() if f"-{split}." in path.name or path.suffix == ".json")
    facts = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    data, evaluation = config.data, config.evaluation
    how = [data.sampling, data.stride, data.target_fps, data.short_clips, data.eval_resize]
    how += [evaluation.clips, evaluation.crops, evaluation.starts, str(dataset.path.resolve()), split]
    return hashlib.sha256(json.dumps([how, facts]).encode()).hexdigest()


@dataclass
class Features:
    """Extracts the features of a model, the mean over the views, or takes them from `workdir/features`."""

    config: Config
    dataset: VideoDataset
    mesh: jax.sharding.Mesh
    model: VideoTransformer
    workdir: Path

    def __post_init__(self):
        graph, state = nnx.split(self.model, nnx.Param)
        params = nnx.to_pure_dict(state)
        self.params = jax.device_put(jax.tree.map(np.asarray, params), state_sharding(self.mesh, params))
        self.digest = digest(self.model)

        def mean(params, video):
            model, flat = nnx.merge(graph, params), video.reshape(-1, *video.shape[2:])
            found = model.features(normalize(to_float(flat), model.preprocessing))
            return found.astype(np.float32).reshape(*video.shape[:2], -1).mean(1)

        self.over = Pass(self.config, self.mesh, self.params, self.workdir, mean)

    def __call__(self, split: str) -> Seen:
        """Of the N videos that can be read: float32 [N, D], the same in every process."""
        key = hashlib.sha256((self.digest + _data_digest(self.config, self.dataset, split)).encode()).hexdigest()
        path = self.workdir / "features" / f"{split}_{key[:16]}.npz"
        # The first process decides for all: another may see the file that it has just written.
        there = multihost_utils.broadcast_one_to_all(np.int32(jax.process_index() == 0 and _read(path) is not None))
        if there and (kept := _read(path)):
            return kept
        seen = self.over(self.params, self.dataset.source(split), split)
        if jax.process_index() == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
            arrays: dict[str, Any] = named("label", seen.labels) | {"dropped": np.asarray(seen.dropped)}
            with replacing(path) as temporary, temporary.open("wb") as file:
                np.savez(file, path=seen.paths, features=seen.outputs, **arrays)
        return seen


def _read(path: Path) -> Seen | None:
    """What was kept; None where there is nothing, or nothing whole."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        return Seen(arrays["path"], by_head("label", arrays), arrays["features"], int(arrays["dropped"]))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
