"""What the JSON files of a Hugging Face directory say about a model."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vivit_jax.architecture import Labels, ModelConfig, Preprocessing
from vivit_jax.checkpoints.conversion import Tensors
from vivit_jax.checkpoints.timesformer import ATTENTION, released_preprocessing
from vivit_jax.errors import UserError
from vivit_jax.variants import preprocessing

GELU = {"gelu": "exact", "gelu_python": "exact", "gelu_fast": "tanh", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}
# What transformers assumes where a config.json does not say.
DEFAULTS: dict[str, Any] = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-6,
    "image_size": 224,
    "patch_size": 16,
    "num_frames": 8,
    "attention_type": "divided_space_time",
}
# The fields of ours that theirs decide, also beside what we keep.
SAID = ("num_classes", "num_frames", "image_size", "patch_size", "tubelet_size", "width", "num_layers", "num_heads")
SAID += ("mlp_dim", "attention", "positions", "representation_size", "layer_norm_eps", "gelu")
SAID += ("dropout", "attention_dropout")
VIVIT_DEFAULTS = DEFAULTS | {"num_frames": 32, "tubelet_size": [2, 16, 16], "hidden_act": "gelu_fast"}


def read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{path}: is not JSON ({error})") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: is not a JSON object")
    return values


def labels(values: Mapping[str, Any]) -> Labels | None:
    """The names of the classes; None where they were never given any."""
    if heads := values.get("labels"):  # ours, of several heads
        return {head: tuple(names) for head, names in heads.items()}
    names = values.get("id2label")
    if not names or all(name == f"LABEL_{index}" for index, name in names.items()):
        return None
    return tuple(names[index] for index in sorted(names, key=int))


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else tuple(size)


def architecture(name: str, model_type: str, values: dict[str, Any], tensors: Tensors, prefix: str) -> ModelConfig:
    """Raises UserError for what would give other numbers."""
    if "video_size" in values:  # as the first ViViTs were written
        values["num_frames"], values["image_size"], _ = values["video_size"]
    image = model_type in ("vit", "deit")
    values = (
        (VIVIT_DEFAULTS if model_type == "vivit" else DEFAULTS) | ({"layer_norm_eps": 1e-12} if image else {}) | values
    )
    _check(name, values)
    tubelet = values["tubelet_size"] if model_type == "vivit" else (1, *_pair(values["patch_size"]))
    fields: dict[str, Any] = {}
    if model_type == "timesformer":
        attention = ATTENTION[values["attention_type"]]
        fields = dict(attention=attention, positions="space" if attention == "space" else "space_time")
        fields |= dict(position_resize="nearest", initializer="truncated_normal")
    head, pooler = tensors.get("classifier.weight"), tensors.get(f"{prefix}pooler.dense.weight")
    return ModelConfig(
        num_classes=head().shape[0] if head else 1,
        num_frames=1 if image else values["num_frames"],
        image_size=_pair(values["image_size"]),
        patch_size=(tubelet[1], tubelet[2]),
        tubelet_size=tubelet[0],
        width=values["hidden_size"],
        num_layers=values["num_hidden_layers"],
        num_heads=values["num_attention_heads"],
        mlp_dim=values["intermediate_size"],
        representation_size=pooler().shape[0] if pooler else 0,
        layer_norm_eps=float(values["layer_norm_eps"]),
        gelu="exact" if GELU[values["hidden_act"]] == "exact" else "tanh",
        dropout=float(values.get("hidden_dropout_prob", 0.0)),
        attention_dropout=float(values.get("attention_probs_dropout_prob", 0.0)),
        stochastic_depth=float(values.get("drop_path_rate", 0.0)),
        **fields,
    )


def _check(name: str, values: dict[str, Any]) -> None:
    if values["hidden_act"] not in GELU:
        raise UserError(f"{name}: config.json: hidden_act {values['hidden_act']!r} is none of {', '.join(GELU)}")
    if values["attention_type"] not in ATTENTION:
        known = ", ".join(ATTENTION)
        raise UserError(f"{name}: config.json: attention_type {values['attention_type']!r} is none of {known}")
    if not values.get("qkv_bias", True):
        raise UserError(f"{name}: config.json: qkv_bias is false; models without it cannot be expressed")


def default_feeding(model_type: str, config: ModelConfig) -> Preprocessing:
    """Where nothing is said."""
    return released_preprocessing(config, {}) if model_type == "timesformer" else preprocessing("vivit", config)


def feeding(path: Path, found: Preprocessing) -> Preprocessing:
    """`found` with what preprocessor_config.json says, where there is one, folded into (pixel / 255 - mean) / std."""
    if not path.exists():
        return found
    values = read_json(path)
    scale = 255 * values.get("rescale_factor", 1 / 255) if values.get("do_rescale", True) else 255.0
    shift = 1.0 if values.get("offset", False) else 0.0
    mean, std = np.zeros(3), np.ones(3)
    if values.get("do_normalize", True):
        mean, std = np.asarray(values.get("image_mean", (0.5,) * 3)), np.asarray(values.get("image_std", (0.5,) * 3))
    folded = (float(x) for x in (mean + shift) / scale), (float(x) for x in std / scale)
    size, short_side = values.get("size"), found.resize or min(found.image_size)
    said = int(size.get("shortest_edge", short_side)) if isinstance(size, dict) else short_side
    resize = found.resize if said == short_side else said
    return dataclasses.replace(found, mean=tuple(folded[0]), std=tuple(folded[1]), resize=resize)
