"""Directories of Hugging Face: TimeSformer, ViViT, image ViT and DeiT, and the same style for all other models."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from vivit_jax.architecture import ModelConfig, Preprocessing
from vivit_jax.checkpoints.conversion import (
    LEADING_ONE,
    SAME,
    TORCH_CONV_2D,
    TORCH_CONV_3D,
    Checkpoint,
    Rule,
    Tensors,
    positions_codec,
)
from vivit_jax.checkpoints.huggingface_config import SAID, architecture, default_feeding, feeding, labels, read_json
from vivit_jax.checkpoints.timesformer import (
    TIME_TABLE,
    fused_attention,
    linear,
    norm,
    read_torch,
    torch_tensors,
)
from vivit_jax.errors import UserError
from vivit_jax.models.attention import SCHEMES
from vivit_jax.schema import build

OURS = "vivit_jax"  # our own model_type, and the key under which what theirs cannot say is kept beside it
PREFIX = {"timesformer": "timesformer.", "vivit": "vivit.", "vit": "vit.", "deit": "deit."}


def separate_attention(ours: str, theirs: str) -> list[Rule]:
    """An attention of torch with a layer each for query, key and value."""
    return [
        *(rule for x in ("query", "key", "value") for rule in linear(f"{ours}/{x}", f"{theirs}.attention.{x}")),
        *linear(f"{ours}/out", f"{theirs}.output.dense"),
    ]


def rules(model_type: str, config: ModelConfig, prefix: str) -> list[Rule]:
    """The table of their names; of our own type they are our paths, with dots."""
    if model_type == OURS:
        return [Rule("/".join([r"(\w+)"] * n), (".".join(rf"\{i + 1}" for i in range(n)),), SAME) for n in range(1, 9)]
    block, layer = r"encoder/blocks/(\d+)/", rf"{prefix}encoder.layer.\1."
    spatial = len(SCHEMES[config.attention].steps) - 1
    attention = f"{layer}attention"
    table = [
        Rule("embedding/kernel", (f"{prefix}embeddings.patch_embeddings.projection.weight",), TORCH_CONV_2D),
        Rule("embedding/bias", (f"{prefix}embeddings.patch_embeddings.projection.bias",), SAME),
        Rule("encoder/cls", (f"{prefix}embeddings.cls_token",), LEADING_ONE),
        Rule("encoder/positions/cls", (f"{prefix}embeddings.position_embeddings",), positions_codec(True, 0)),
        Rule("encoder/positions/space", (f"{prefix}embeddings.position_embeddings",), positions_codec(False, 1)),
        Rule("encoder/positions/time", (f"{prefix}embeddings.time_embeddings",), TIME_TABLE),
        *norm(rf"{block}attention/{spatial}/norm", f"{layer}layernorm_before"),
        *norm(rf"{block}mlp/norm", f"{layer}layernorm_after"),
        *linear(rf"{block}mlp/up", f"{layer}intermediate.dense"),
        *linear(rf"{block}mlp/down", f"{layer}output.dense"),
        *norm("encoder/norm", f"{prefix}layernorm"),
        *linear("pre_logits", f"{prefix}pooler.dense"),
        *linear("heads/head", "classifier"),
    ]
    if model_type != "timesformer":
        if model_type == "vivit":
            table[0] = table[0]._replace(codec=TORCH_CONV_3D)
        return table + separate_attention(rf"{block}attention/0", attention)
    table += [
        *fused_attention(rf"{block}attention/{spatial}", f"{attention}.attention.qkv", f"{attention}.output.dense"),
        *norm(rf"{block}attention/0/norm", f"{layer}temporal_layernorm"),
        *fused_attention(
            rf"{block}attention/0",
            f"{layer}temporal_attention.attention.qkv",
            f"{layer}temporal_attention.output.dense",
        ),
        *linear(rf"{block}attention/0/project", f"{layer}temporal_dense"),
    ]
    return table


def open_checkpoint(directory: Path, name: str) -> Checkpoint:
    """Raises UserError where a file is missing or broken, or the model is of a type that is not ours to read."""
    values = read_json(directory / "config.json")
    model_type = values.get("model_type")
    if model_type not in (OURS, *PREFIX):
        raise UserError(f"{name}: config.json: model_type {model_type!r} is none of {', '.join((OURS, *PREFIX))}")
    tensors = _tensors(directory, name)
    prefix = PREFIX.get(model_type, "")
    prefix = prefix if any(key.startswith(prefix) for key in tensors) else ""
    said = architecture(name, model_type, values, tensors, prefix) if model_type != OURS else None
    if OURS in values:
        config, fed = _kept(name, values[OURS], said)
    elif said:
        config, fed = said, default_feeding(model_type, said)
    else:
        raise UserError(f"{name}: config.json: has no {OURS!r}, which describes the model")
    table = rules(model_type, config, prefix)
    if model_type == "deit":
        tensors = _without_distillation(dict(tensors), prefix)
    fed = feeding(directory / "preprocessor_config.json", fed)
    return Checkpoint(name, config, fed, labels(values), table, tensors, exact=model_type != "deit")


def _kept(name: str, kept: Any, said: ModelConfig | None) -> tuple[ModelConfig, Preprocessing]:
    """What we wrote into config.json, below what transformers' own keys say, which change where it saves again."""
    try:
        config = build(ModelConfig, _tuples(kept["architecture"]), f"{name}: config.json: architecture")
        fed = build(Preprocessing, kept["preprocessing"], f"{name}: config.json: preprocessing")
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{name}: config.json: {OURS!r} does not describe a model ({error})") from error
    if said is None:
        return config, fed
    new = dataclasses.replace(config, **{field: getattr(said, field) for field in SAID})
    if (new.num_frames, new.image_size) != (config.num_frames, config.image_size):
        fed = fed.resized_to(new.num_frames, new.image_size)
    return new, fed


def _without_distillation(tensors: dict[str, Any], prefix: str) -> Tensors:
    """DeiT's second token, and its row of positions, which no model of ours has."""
    positions = tensors.pop(f"{prefix}embeddings.position_embeddings")
    del tensors[f"{prefix}embeddings.distillation_token"]
    tensors = {key: x for key, x in tensors.items() if not key.startswith("distillation_classifier")}
    tensors = {key.replace("cls_classifier", "classifier"): x for key, x in tensors.items()}
    return tensors | {f"{prefix}embeddings.position_embeddings": lambda: np.delete(positions(), 1, axis=1)}


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    """Several heads are a tuple of tuples, which JSON has as lists."""
    heads = values.get("num_classes")
    return values | ({"num_classes": tuple(map(tuple, heads))} if isinstance(heads, list) else {})


def _tensors(directory: Path, name: str) -> Tensors:
    files = sorted(directory.glob("model*.safetensors"))
    if not files:
        pickled = directory / "pytorch_model.bin"
        if pickled.exists():
            return torch_tensors(read_torch(pickled))
        raise UserError(f"{name}: has no model.safetensors and no pytorch_model.bin")
    tensors: dict[str, Any] = {}
    for path in files:
        try:
            file = safe_open(path, framework="numpy")
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path}: is not a whole safetensors file ({error})") from error
        tensors |= {key: lambda key=key, file=file: file.get_tensor(key) for key in sorted(file.keys())}
    return tensors
