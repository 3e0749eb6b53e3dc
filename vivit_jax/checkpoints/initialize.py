"""Starting a video model from another one's weights: an image ViT's, or those of a video model of another size."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from vivit_jax.architecture import ModelConfig, Preprocessing
from vivit_jax.checkpoints.conversion import Checkpoint, ignored, read
from vivit_jax.checkpoints.parameters import abstract_model, paths
from vivit_jax.checkpoints.pretrained import open_checkpoint, open_model
from vivit_jax.config import base
from vivit_jax.errors import UserError
from vivit_jax.models.attention import SCHEMES
from vivit_jax.models.initializers import inflate
from vivit_jax.models.tokenizers import resize_axis
from vivit_jax.variants import described

Origin = tuple[str, Callable[[np.ndarray], np.ndarray]]  # a path of the source, and what becomes of its array
KEEP = ("heads", "pre_logits")  # new, unless asked for


def config_for(source: str | Path, **overrides: Any) -> Any:
    """A ConfigDict, as `config.base` makes them, of a run that starts from a checkpoint and sees what that one saw.

    Its architecture, frames and pixels are the checkpoint's; the dataset, and how it is learned, stay to be set. An
    image model's is a model of one frame.

    Args:
      source: what `load_model` reads.
      **overrides: fields of the model, such as num_frames=16.
    Raises:
      UserError: as `load_model` does.
    """
    _, model = open_model(source, **overrides)
    feeding, config = model.preprocessing, base()
    config.init_from = str(source)
    config.model.update(described(model.config))
    config.data.update(sampling=feeding.sampling, short_clips=feeding.short_clips)
    config.data.update(stride=float(feeding.stride), target_fps=float(feeding.target_fps))
    config.data.eval_resize = feeding.resize or min(feeding.image_size)
    return config


def initial_params(
    source: str | Path | Checkpoint,
    config: ModelConfig,
    feeding: Preprocessing,
    shapes: Mapping[str, tuple[int, ...]],
    keep: Sequence[str] = KEEP,
) -> dict[str, np.ndarray]:
    """What a model of `config` takes over from `source`, by path; the rest of it stays as it was initialized.

    Positions are tiled over time where the source is an image model, and resized by corner-aligned linear zoom where
    the grid is another (ViViT 3.4). Its kernel becomes the tubelets' as `config.embedding_initializer` says, and stays
    random if that is "random". An image model's attention goes to every step of a block. Where a step ends in a
    zero-initialized projection (TimeSformer), or is the only one, its norm is taken over as well; the temporal norm of
    ViViT's factorized self-attention, and the temporal encoder of the factorized encoder, stay new, as released.

    Args:
      source: what `load_model` reads.
      feeding: how the new model is fed. Where a video model was fed otherwise, its embedding is adapted.
      shapes: every parameter of the new model.
      keep: parts of paths that stay as they were initialized. ("heads", "pre_logits", "encoder/cls") is what the
        released ViViT code does for a factorized encoder: it leaves the image model's CLS token behind.
    Raises:
      UserError: the two do not fit: another number of layers or heads, no counterpart of an attention step, or a list
        of all parameters of another shape. A parameter without an origin stays new, and is none of these.
    """
    checkpoint = source if isinstance(source, Checkpoint) else open_checkpoint(source)
    theirs = {path: x.shape for path, x in paths(abstract_model(checkpoint.config, checkpoint)).items()}
    arrays = read(checkpoint, theirs, keep)
    _check_depth(checkpoint, config)
    if checkpoint.config.num_frames > 1 and not ignored("embedding/kernel", keep):
        _feed(arrays, checkpoint.preprocessing, feeding)
    _fold(arrays, checkpoint.config, config, shapes)
    new, problems = {}, []
    for path, shape in shapes.items():
        if ignored(path, keep):
            continue
        origin = _origin(path, shape, checkpoint.config, config, arrays)
        if origin is None:
            continue
        value = origin[1](arrays[origin[0]])
        if value.shape == tuple(shape):
            new[path] = value
        else:
            problems.append(f"{path} {list(arrays[origin[0]].shape)} for {list(shape)}")
    if problems:
        raise UserError(f"config.init_from: {checkpoint.source} does not fit the model: {', '.join(problems)}")
    return new


def _feed(arrays: dict[str, np.ndarray], theirs: Preprocessing, ours: Preprocessing) -> None:
    """Puts the difference between two normalizations and orders of channels into the embedding, which is linear."""
    kernel = arrays["embedding/kernel"]  # [t, h, w, 3, D]
    mean, std, our_mean, our_std = (
        np.asarray(values, np.float32) for values in (theirs.mean, theirs.std, ours.mean, ours.std)
    )
    if theirs.channel_order != ours.channel_order:
        kernel, mean, std = kernel[..., ::-1, :], mean[::-1], std[::-1]
    scale, shift = our_std / std, (our_mean - mean) / std
    arrays["embedding/bias"] = arrays["embedding/bias"] + np.einsum("thwcd,c->d", kernel, shift)
    arrays["embedding/kernel"] = kernel * scale[:, None]


def _fold(arrays: dict[str, np.ndarray], theirs: ModelConfig, ours: ModelConfig, shapes: Mapping[str, Any]) -> None:
    """Puts what has no place in the model into what has: time's table into one of both, and the projection after an
    attention into its output."""
    time, space = "encoder/positions/time", "encoder/positions/space"
    if time in arrays and time not in shapes and space in arrays and shapes.get(space, (1,))[0] > 1:
        table = arrays.pop(time)
        arrays[space] = arrays[space] + table.reshape(len(table), 1, 1, -1)
    projected = {step.axes for step in SCHEMES[ours.attention].steps if step.project}
    for index, step in enumerate(SCHEMES[theirs.attention].steps):
        for block in range(theirs.num_layers):
            out, project = (f"encoder/blocks/{block}/attention/{index}/{name}" for name in ("out", "project"))
            if step.axes in projected or not {f"{out}/kernel", f"{project}/kernel"} <= arrays.keys():
                continue
            kernel, bias = arrays.pop(f"{project}/kernel"), arrays.pop(f"{project}/bias")
            arrays[f"{out}/bias"] = arrays[f"{out}/bias"] @ kernel + bias
            arrays[f"{out}/kernel"] = arrays[f"{out}/kernel"] @ kernel


def _check_depth(checkpoint: Checkpoint, config: ModelConfig) -> None:
    theirs = checkpoint.config
    names = ["num_layers", "num_heads"]
    names += ["temporal_layers"] if theirs.attention == config.attention == "factorized_encoder" else []
    for name in names:
        if getattr(theirs, name) != getattr(config, name):
            there = getattr(theirs, name)
            raise UserError(f"config.model.{name}: {getattr(config, name)}, but {checkpoint.source} has {there}")


def _origin(path: str, shape, theirs: ModelConfig, ours: ModelConfig, arrays: Mapping[str, Any]) -> Origin | None:
    """Where one of our parameters comes from; None where it stays as it is."""
    if path == "embedding/kernel":
        return _kernel(shape, theirs, ours)
    if path.endswith("/positions/space"):
        return (path, lambda x: _resized(x, shape)) if path in arrays else None
    if path.endswith("/positions/time"):
        return (path, lambda x: _zoom(x, 0, shape[0])) if path in arrays else None
    parts = path.split("/")
    if parts[0] == "encoder" and parts[3:4] == ["attention"]:
        return _attention(parts, theirs, ours, arrays)
    return (path, lambda x: x) if path in arrays else None


def _kernel(shape, theirs: ModelConfig, ours: ModelConfig) -> Origin | None:
    if theirs.tubelet_size == ours.tubelet_size:
        return "embedding/kernel", lambda x: x
    if ours.embedding_initializer == "random" and theirs.tubelet_size == 1:
        return None
    frames, how = shape[0], ours.embedding_initializer
    # From one tubelet to another there is no rule: its shape is then reported.
    return "embedding/kernel", lambda x: np.asarray(inflate(jnp.asarray(x[0]), frames, how)) if len(x) == 1 else x


def _zoom(table: np.ndarray, axis: int, size: int) -> np.ndarray:
    return np.asarray(resize_axis(jnp.asarray(table), axis, size, "linear"))


def _resized(table: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Rows and columns by zoom; time by tiling what an image had, and by zoom what a video had."""
    for axis in (1, 2):
        table = _zoom(table, axis, shape[axis])
    if table.shape[0] == 1:
        return np.tile(table, (shape[0], 1, 1, 1))
    return _zoom(table, 0, shape[0]) if shape[0] > 1 else table


def _attention(parts: list[str], theirs: ModelConfig, ours: ModelConfig, arrays: Mapping[str, Any]) -> Origin | None:
    """The step over the same axes, or the only one that an image model has."""
    own, steps = SCHEMES[ours.attention].steps, SCHEMES[theirs.attention].steps
    step = own[int(parts[4])]
    same = [index for index, other in enumerate(steps) if other.axes == step.axes]
    if not same and len(steps) > 1:
        raise UserError(f"config.model.attention: {ours.attention!r} has no counterpart in {theirs.attention!r}")
    index = same[0] if same else 0
    path = "/".join([*parts[:4], str(index), *parts[5:]])
    added = not same and len(own) > 1 and step.axes == ("time",) and not step.project
    if path not in arrays or (added and parts[5] == "norm"):
        return None
    return path, lambda x: x
