"""Published checkpoints in, and our models out."""

import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vivit_jax.architecture import ModelConfig
from vivit_jax.checkpoints import huggingface, image_vit, scenic, timesformer
from vivit_jax.checkpoints.conversion import Checkpoint, Which, believing, read
from vivit_jax.checkpoints.parameters import abstract_model, filled, paths
from vivit_jax.errors import UserError
from vivit_jax.models.initializers import Keys
from vivit_jax.models.tokenizers import resize_axis
from vivit_jax.models.video_transformer import VideoTransformer
from vivit_jax.variants import override

# What may differ from the checkpoint: it changes no parameter's meaning, only the tables of positions and the head.
FREE = ("num_classes", "num_frames", "image_size", "sampled_frames", "position_resize", "dropout", "attention_dropout")
FREE += ("stochastic_depth", "dtype", "attention_chunk", "attention_kernel", "scan", "remat")
FREE += ("embedding_initializer", "initializer")


def load_model(
    source: str | Path, *, ignore: Sequence[str] = (), step: Which = "latest", seed: int = 0, **overrides: Any
) -> VideoTransformer:
    """Loads a checkpoint of any of the formats that are known, which it recognizes.

    Args:
      source: a Hugging Face Hub id or a directory of one (TimeSformer, ViViT, ViT, DeiT, or written by
        `save_pretrained`); a TimeSformer's .pyth or .pt; a ViViT checkpoint file of Scenic; an image ViT's .npz; or a
        workdir of ours.
      ignore: parts of parameter names that may be missing, unexpected or of another shape, as in ("head",); such
        parameters are initialized from `seed`.
      step: of a workdir: a number, "latest", or "best", the one with the highest validation top-1 of those still there.
      **overrides: fields of the model's config. Positions are interpolated where the grid of tokens changes.
    Raises:
      UserError: (a ValueError) the source is none of these, cannot be read, does not fill the model or is not used up
        by it, or an override cannot be honored; one message that names all that is wrong.
    """
    checkpoint, target = open_model(source, step=step, **overrides)
    return read_model(checkpoint, target, ignore=ignore, seed=seed)


def open_model(source: str | Path, *, step: Which = "latest", **overrides: Any) -> tuple[Checkpoint, VideoTransformer]:
    """A checkpoint, and the structure of the model that `load_model` makes of it; its weights are not read yet."""
    checkpoint = open_checkpoint(source, step, overrides)
    if not checkpoint.exact:
        raise UserError(f"{source}: its second, distillation token has no counterpart here; only init_from can use it")
    config = _target(checkpoint, overrides)
    fed = checkpoint.preprocessing.resized_to(config.num_frames, config.image_size)
    return checkpoint, abstract_model(config, replace(checkpoint, preprocessing=fed))


def read_model(
    checkpoint: Checkpoint, target: VideoTransformer, *, ignore: Sequence[str] = (), seed: int = 0
) -> VideoTransformer:
    """`target` of `open_model`, with its weights."""
    config = target.config
    own = target if config == checkpoint.config else abstract_model(checkpoint.config, checkpoint)
    shapes = {path: x.shape for path, x in paths(target).items()}

    def place(path: str, value: np.ndarray) -> jax.Array:
        return jnp.array(_fit(checkpoint, path, value, shapes.get(path), config))

    arrays: dict[str, Any] = read(checkpoint, {path: x.shape for path, x in paths(own).items()}, ignore, place)
    arrays |= _initial(target, [path for path in shapes if path not in arrays], seed)
    return filled(target, arrays)


def open_checkpoint(source: str | Path, step: Which = "latest", given: Mapping[str, Any] | None = None) -> Checkpoint:
    """Recognizes a checkpoint; its weights are not read yet. `given` says what some formats leave open."""
    given, path = given or {}, Path(source)
    if not path.exists():
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", str(source)):
            raise UserError(f"{source}: is no file, no directory, and no id of the Hugging Face Hub (OWNER/NAME)")
        path = _download(str(source))
    with believing(source):
        return _open_directory(path, str(source), step) if path.is_dir() else _open_file(path, given)


def _open_directory(path: Path, name: str, step: Which) -> Checkpoint:
    if (path / "checkpoints").is_dir() and (path / "config.json").exists():
        from vivit_jax.checkpoints import workdir  # Orbax is needed for nothing else

        return workdir.open_checkpoint(path.absolute(), step)
    if (path / "config.json").exists():
        return huggingface.open_checkpoint(path, name)
    raise UserError(f"{path}: has no config.json; it is neither a Hugging Face directory nor a workdir")


def _open_file(path: Path, given: Mapping[str, Any]) -> Checkpoint:
    with path.open("rb") as file:
        start = file.read(2)
    if not start:
        raise UserError(f"{path}: is an empty file")
    if zipfile.is_zipfile(path):  # both are archives; torch's has one folder around everything
        with zipfile.ZipFile(path) as archive:
            arrays = all(name.endswith(".npy") for name in archive.namelist())
        return image_vit.open_checkpoint(path) if arrays else timesformer.open_checkpoint(path, given)
    if (start[:1] == b"\x80" and start[1:] in (b"\x02", b"\x03", b"\x04", b"\x05")) or path.suffix in (
        ".pyth",
        ".pt",
        ".pth",
    ):
        return timesformer.open_checkpoint(path, given)  # a pickle, as torch wrote before 1.6
    if path.suffix == ".npz":
        return image_vit.open_checkpoint(path)
    if path.suffix == ".safetensors":
        raise UserError(f"{path}: give the directory, whose config.json says what the weights are of")
    return scenic.open_checkpoint(path, given)


def _download(name: str) -> Path:
    """A snapshot of a Hub repository in huggingface_hub's cache."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        patterns = ["config.json", "preprocessor_config.json", "model*.safetensors"]
        directory = Path(snapshot_download(name, allow_patterns=patterns))
        if not list(directory.glob("model*.safetensors")):
            directory = Path(snapshot_download(name, allow_patterns=[*patterns, "pytorch_model.bin"]))
    except (OfflineModeIsEnabled, LocalEntryNotFoundError) as error:
        raise UserError(
            f"{name}: no file or folder, not in the cache, and the Hugging Face Hub cannot be reached"
        ) from error
    except (HfHubHTTPError, HFValidationError) as error:
        raise UserError(
            f"{name}: no file or folder, and no repository of the Hugging Face Hub, or it is private or gated"
        ) from error
    except OSError as error:
        raise UserError(f"{name}: cannot be downloaded: {error.strerror or error}") from error
    return directory


def _target(checkpoint: Checkpoint, overrides: Mapping[str, Any]) -> ModelConfig:
    config = override(checkpoint.config, overrides)
    for key in overrides:
        if key not in FREE and getattr(config, key) != getattr(checkpoint.config, key):
            there = getattr(checkpoint.config, key)
            raise UserError(f"model.{key}: {overrides[key]!r}, but {checkpoint.source} has {there!r}, which is fixed")
    return config


def _initial(model: VideoTransformer, names: list[str], seed: int) -> dict[str, Any]:
    """New parameters for those that a checkpoint does not give; what is not asked for is not computed."""
    if not names:
        return {}

    def create():
        new = paths(VideoTransformer(model.config, model.preprocessing, Keys(seed)))
        return {name: new[name] for name in names}

    return jax.jit(create)()


def _fit(
    checkpoint: Checkpoint, path: str, value: np.ndarray, shape: tuple[int, ...] | None, config: ModelConfig
) -> np.ndarray:
    """Resizes a table of positions to the grid of the model that is wanted, which may have other heads."""
    if value.shape == shape:
        return value
    if shape and "/positions/" in path:
        for axis in range(3):
            value = np.asarray(resize_axis(jnp.asarray(value), axis, shape[axis], config.position_resize))
        return value
    there = f"the head of {checkpoint.source} has {_classes(checkpoint.config)}"
    raise UserError(f'model.num_classes: {_classes(config)}, but {there}; leave it out by ignore=("heads",)')


def _classes(config: ModelConfig) -> int | dict[str, int]:
    """As one gives them."""
    return config.num_classes if isinstance(config.num_classes, int) else config.heads
