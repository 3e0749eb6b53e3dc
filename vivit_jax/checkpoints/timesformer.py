"""Checkpoints of the TimeSformer release (.pyth, .pt): torch files, read without running anything in them."""

import importlib
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from vivit_jax.architecture import ModelConfig, Preprocessing
from vivit_jax.checkpoints.conversion import (
    LEADING_ONE,
    SAME,
    TORCH_CONV_2D,
    TRANSPOSED,
    Checkpoint,
    Codec,
    Rule,
    Tensors,
    positions_codec,
    torch_part,
)
from vivit_jax.errors import UserError
from vivit_jax.models.attention import SCHEMES
from vivit_jax.variants import model_config, preprocessing

ATTENTION = {"divided_space_time": "divided", "space_only": "space", "joint_space_time": "joint"}
TIME_TABLE = Codec(lambda x: [x[None, :, 0, 0]], lambda theirs, shape: theirs[0].reshape(shape))


def linear(ours: str, theirs: str) -> list[Rule]:
    """A linear layer of torch."""
    return [Rule(f"{ours}/kernel", (f"{theirs}.weight",), TRANSPOSED), Rule(f"{ours}/bias", (f"{theirs}.bias",), SAME)]


def norm(ours: str, theirs: str) -> list[Rule]:
    """A LayerNorm of torch."""
    return [Rule(f"{ours}/scale", (f"{theirs}.weight",), SAME), Rule(f"{ours}/bias", (f"{theirs}.bias",), SAME)]


def fused_attention(ours: str, qkv: str, out: str) -> list[Rule]:
    """An attention of torch whose query, key and value are one layer."""
    parts = [(torch_part(i), f"{ours}/{name}") for i, name in enumerate(("query", "key", "value"))]
    weights = [Rule(f"{part}/kernel", (f"{qkv}.weight",), codec) for codec, part in parts]
    biases = [Rule(f"{part}/bias", (f"{qkv}.bias",), codec) for codec, part in parts]
    return weights + biases + linear(f"{ours}/out", out)


def rules(config: ModelConfig) -> list[Rule]:
    """The table of the release's names."""
    block, layer = r"encoder/blocks/(\d+)/", r"blocks.\1."
    spatial = len(SCHEMES[config.attention].steps) - 1
    return [
        Rule("embedding/kernel", ("patch_embed.proj.weight",), TORCH_CONV_2D),
        Rule("embedding/bias", ("patch_embed.proj.bias",), SAME),
        Rule("encoder/cls", ("cls_token",), LEADING_ONE),
        Rule("encoder/positions/cls", ("pos_embed",), positions_codec(True, 0)),
        Rule("encoder/positions/space", ("pos_embed",), positions_codec(False, 1)),
        Rule("encoder/positions/time", ("time_embed",), TIME_TABLE),
        *norm(rf"{block}attention/{spatial}/norm", f"{layer}norm1"),
        *fused_attention(rf"{block}attention/{spatial}", f"{layer}attn.qkv", f"{layer}attn.proj"),
        *norm(rf"{block}attention/0/norm", f"{layer}temporal_norm1"),
        *fused_attention(rf"{block}attention/0", f"{layer}temporal_attn.qkv", f"{layer}temporal_attn.proj"),
        *linear(rf"{block}attention/0/project", f"{layer}temporal_fc"),
        *norm(rf"{block}mlp/norm", f"{layer}norm2"),
        *linear(rf"{block}mlp/up", f"{layer}mlp.fc1"),
        *linear(rf"{block}mlp/down", f"{layer}mlp.fc2"),
        *norm("encoder/norm", "norm"),
        *linear("heads/head", "head"),
    ]


def open_checkpoint(path: Path, given: Mapping[str, Any]) -> Checkpoint:
    """Raises UserError where torch is missing, or the file is none of a TimeSformer."""
    content = read_torch(path)
    tensors = _unwrap(str(path), content)
    settings = _settings(content.get("cfg"))
    config = _infer(str(path), tensors, settings, given)
    return Checkpoint(str(path), config, released_preprocessing(config, settings), None, rules(config), tensors)


def read_torch(path: Path) -> Mapping[str, Any]:
    """What a torch file holds: tensors and plain values; anything that would run code is refused."""
    try:
        torch = importlib.import_module("torch")  # an extra
    except ImportError as error:
        raise UserError(f"{path}: reading torch files needs torch: pip install vivit_jax[torch]") from error
    options: dict[str, Any] = dict(map_location="cpu", weights_only=True)
    try:
        try:
            content = torch.load(path, mmap=True, **options)
        except (RuntimeError, ValueError):  # of before torch 1.6: no zip archive, which cannot be mapped
            content = torch.load(path, **options)
    except Exception as error:  # torch raises whatever its parsers meet
        reason = (
            "it holds more than tensors and plain values"
            if "weights_only" in str(error)
            else "cut short, or no torch file"
        )
        raise UserError(f"{path}: cannot be read safely: {reason}") from error
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: holds a {type(content).__name__}, not a checkpoint")
    return content


def torch_tensors(values: Mapping[str, Any]) -> Tensors:
    """The float tensors of a state dict."""
    return {name: lambda x=x: _numpy(x) for name, x in values.items() if hasattr(x, "is_floating_point")}


def _numpy(tensor: Any) -> np.ndarray:
    return tensor.detach().float().numpy()


def _unwrap(source: str, content: Mapping[str, Any]) -> Tensors:
    """The parameters of `{model_state}`, `{state_dict}`, `{model}` or a bare dict, without `model.` and `module.`."""
    for wrapper in ("model_state", "state_dict", "model"):
        if isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    tensors = {re.sub(r"^(module\.|model\.)+", "", name): x for name, x in torch_tensors(content).items()}
    if not {"cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight"} <= tensors.keys():
        raise UserError(f"{source}: is not a TimeSformer; it has no cls_token, pos_embed, patch_embed or blocks.0.attn")
    return tensors


def _settings(cfg: Any) -> dict[str, Any]:
    """The flat keys of what was trained, in lower case, of the release's YAML or of a JSON text."""
    try:
        values = yaml.safe_load(cfg) if isinstance(cfg, str) else {}
    except yaml.YAMLError:
        return {}
    flat: dict[str, Any] = {}
    for key, value in values.items() if isinstance(values, dict) else ():
        flat |= {str(k).lower(): v for k, v in (value if isinstance(value, dict) else {key: value}).items()}
    return flat


def _infer(source: str, tensors: Tensors, settings: dict[str, Any], given: Mapping[str, Any]) -> ModelConfig:
    patches, width = tensors["pos_embed"]().shape[1] - 1, tensors["cls_token"]().shape[-1]
    *_, height, across = tensors["patch_embed.proj.weight"]().shape
    if (side := round(patches**0.5)) ** 2 != patches:
        raise UserError(f"{source}: its {patches} positions are no square grid")
    divided, timed = "blocks.0.temporal_attn.qkv.weight" in tensors, "time_embed" in tensors
    frames = tensors["time_embed"]().shape[1] if timed else settings.get("num_frames") or given.get("num_frames") or 8
    layers = {m[1] for name in tensors if (m := re.match(r"blocks\.(\d+)\.", name))}
    heads = given.get("num_heads") or settings.get("num_heads") or width // 64
    if heads < 1:
        raise UserError(f"{source}: does not say how many heads its attention has; give num_heads")
    return model_config(
        "timesformer_b" if divided else "timesformer_b_joint" if timed else "timesformer_b_space",
        tensors["head.weight"]().shape[0] if "head.weight" in tensors else 1,
        num_frames=frames,
        image_size=(side * height, side * across),
        patch_size=(height, across),
        width=width,
        num_layers=len(layers),
        num_heads=heads,
        mlp_dim=tensors["blocks.0.mlp.fc1.weight"]().shape[0],
    )


def released_preprocessing(config: ModelConfig, settings: Mapping[str, Any]) -> Preprocessing:
    """How the release fed its models: every stride of TimeSformer table 5 spans as much of a video as it has frames.

    Its Something-Something v2 models (174 classes) take a frame of each part of the video, and appear to have been
    trained on BGR pictures.
    """
    stride = {8: 32.0, 16: 16.0, 96: 4.0}.get(config.num_frames, 256.0 / config.num_frames)
    is_ssv2 = settings.get("dataset", "ssv2" if config.num_classes == 174 else "") == "ssv2"
    own: dict[str, Any] = dict(sampling="segments", channel_order="BGR") if is_ssv2 else {}
    for name in ("mean", "std"):
        value = settings.get(name)
        if isinstance(value, list) and len(value) == 3 and all(isinstance(x, int | float) for x in value):
            own[name] = tuple(map(float, value))
    if settings.get("reverse_input_channel") is True:
        own["channel_order"] = "BGR"
    return replace(preprocessing("timesformer_b", config), stride=float(settings.get("sampling_rate", stride)), **own)
