"""ViViT checkpoints of Scenic: one flax msgpack file with `optimizer/target`, `target/params` or `params`."""

import itertools
import math
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vivit_jax.architecture import ModelConfig
from vivit_jax.checkpoints.conversion import (
    LEADING_ONE,
    SAME,
    Checkpoint,
    Codec,
    Rule,
    Tensors,
    by_heads,
    columns,
    positions_codec,
)
from vivit_jax.checkpoints.msgpack_file import read_msgpack
from vivit_jax.errors import UserError
from vivit_jax.variants import preprocessing

LAYOUTS = ("optimizer/target/params/", "optimizer/target/", "target/params/", "params/")  # where the parameters are
EPIC_HEADS = {"noun": 300, "verb": 97}
PUBLISHED = (16, 14)  # time steps and side of the released spatio-temporal model: 32 frames of 224 x 224
_IMAGE_KERNEL = Codec(lambda x: [x[0]], lambda theirs, shape: theirs[0][None])


def rules(config: ModelConfig, image_kernel: bool) -> list[Rule]:
    """The table of Scenic's names; `image_kernel` where the embedding's kernel is [h, w, 3, D]."""
    two = config.attention == "factorized_encoder"
    table = [
        Rule(r"embedding/kernel", ("embedding/kernel",), _IMAGE_KERNEL if image_kernel else SAME),
        Rule(r"embedding/bias", ("embedding/bias",), SAME),
        Rule(r"pre_logits/(\w+)", (r"pre_logits/\1",), SAME),
    ]
    table += _head_rules(config.num_classes)
    table += _encoder("encoder", "SpatialTransformer" if two else "Transformer", config.num_heads, config)
    if two:
        table += _encoder("temporal_encoder", "TemporalTransformer", config.temporal_heads or config.num_heads, config)
    return table


def _encoder(ours: str, theirs: str, heads: int, config: ModelConfig) -> list[Rule]:
    cls = f"cls_{theirs}" if config.attention == "factorized_encoder" else "cls"
    has_cls = config.pool == "cls"
    positions = (f"{theirs}/posembed_input/pos_embedding",)
    block, layer = rf"{ours}/blocks/(\d+)/", rf"{theirs}/encoderblock_\1/"
    table = [
        Rule(rf"{ours}/cls", (cls,), LEADING_ONE),
        Rule(rf"{ours}/positions/cls", positions, positions_codec(True, 0)),
        Rule(rf"{ours}/positions/space", positions, positions_codec(False, int(has_cls))),
        Rule(rf"{ours}/norm/(\w+)", (rf"{theirs}/encoder_norm/\1",), SAME),
    ]
    if config.attention.startswith("factorized_self_attention"):
        axes = ("time", "space") if config.attention.endswith("time_space") else ("space", "time")
        attentions = [(f"LayerNorm_{name}", f"MultiHeadDotProductAttention_{name}") for name in axes]
        mlp_norm, mlp = "LayerNorm_mlp", "MlpBlock"
    else:
        attentions, mlp_norm, mlp = [("LayerNorm_0", "MultiHeadDotProductAttention_0")], "LayerNorm_1", "MlpBlock_0"
    for index, (norm, attention) in enumerate(attentions):
        step, name = f"{block}attention/{index}/", f"{layer}{attention}/"
        table += [
            Rule(rf"{step}norm/(\w+)", (rf"{layer}{norm}/\2",), SAME),
            Rule(rf"{step}(query|key|value)/kernel", (rf"{name}\2/kernel",), by_heads(heads, 1)),
            Rule(rf"{step}(query|key|value)/bias", (rf"{name}\2/bias",), by_heads(heads, 0)),
            Rule(rf"{step}out/kernel", (f"{name}out/kernel",), by_heads(heads, 0)),
            Rule(rf"{step}out/bias", (f"{name}out/bias",), SAME),
        ]
    table += [
        Rule(rf"{block}mlp/norm/(\w+)", (rf"{layer}{mlp_norm}/\2",), SAME),
        Rule(rf"{block}mlp/up/(\w+)", (rf"{layer}{mlp}/Dense_0/\2",), SAME),
        Rule(rf"{block}mlp/down/(\w+)", (rf"{layer}{mlp}/Dense_1/\2",), SAME),
    ]
    return table


def open_checkpoint(path: Path, given: Mapping[str, Any]) -> Checkpoint:
    """Recognizes the model by its names and shapes; `given` decides what they leave open.

    Raises:
      UserError: the file is none of a ViViT, or leaves open what was not given.
    """
    tensors = read_msgpack(path, LAYOUTS)
    config, image_kernel = infer(str(path), tensors, given)
    return Checkpoint(str(path), config, preprocessing("vivit", config), None, rules(config, image_kernel), tensors)


def infer(source: str, tensors: Tensors, given: Mapping[str, Any]) -> tuple[ModelConfig, bool]:
    """The architecture from names and shapes, and whether the embedding's kernel is an image's."""
    names = set(tensors)
    two = any(name.startswith("SpatialTransformer/") for name in names)
    encoder = "SpatialTransformer" if two else "Transformer"
    if not {"embedding/kernel", f"{encoder}/posembed_input/pos_embedding"} <= names:
        raise UserError(f"{source}: is not a ViViT; it has no embedding/kernel or no {encoder}/posembed_input")
    *tubelet, _, width = tensors["embedding/kernel"]().shape
    image_kernel, patch = len(tubelet) == 2, (tubelet[-2], tubelet[-1])
    tubelet_size = 1 if image_kernel else tubelet[0]
    has_cls = any(name == "cls" or name.startswith("cls_") for name in names)
    steps, side = _grid(source, tensors, (tubelet_size, *patch), has_cls, given)
    fields: dict[str, Any] = _layers("", encoder, tensors)
    fields |= _layers("temporal_", "TemporalTransformer", tensors) if two else {}
    config = ModelConfig(
        num_classes=_heads(tensors, given),
        num_frames=steps * tubelet_size,
        image_size=(side * patch[0], side * patch[1]),
        patch_size=patch,
        tubelet_size=tubelet_size,
        width=width,
        attention=_attention(source, names, has_cls, given),
        pool="cls" if has_cls else given.get("pool", "mean"),
        representation_size=tensors["pre_logits/kernel"]().shape[1] if "pre_logits/kernel" in names else 0,
        **fields,
    )
    return config, image_kernel


def _attention(source: str, names: set[str], has_cls: bool, given: Mapping[str, Any]) -> Any:
    if any(name.startswith("SpatialTransformer/") for name in names):
        return "factorized_encoder"
    if any("MultiHeadDotProductAttention_time/" in name for name in names):
        choices = ("factorized_self_attention", "factorized_self_attention_time_space")
    else:
        choices = ("joint",) if has_cls else ("factorized_dot_product", "joint")
    if len(choices) > 1 and given.get("attention") not in choices:
        warnings.warn(
            f"{source}: the file does not tell attention={choices[0]!r} from {choices[1]!r}, which have the same "
            f"parameters; taken as the first. Give attention= to decide",
            stacklevel=2,
        )
    return given["attention"] if given.get("attention") in choices else choices[0]


def _layers(prefix: str, encoder: str, tensors: Tensors) -> dict[str, int]:
    layers = {int(m[1]) for name in tensors if (m := re.match(rf"{encoder}/encoderblock_(\d+)/", name))}
    first, ends = f"{encoder}/encoderblock_0/", ("query/kernel", "Dense_0/kernel")
    found = (next((n for n in tensors if n.startswith(first) and n.endswith(end)), f"{first}*/{end}") for end in ends)
    (_, heads, _), (_, mlp_dim) = (tensors[name]().shape for name in found)
    keys = (
        ("temporal_layers", "temporal_heads", "temporal_mlp_dim") if prefix else ("num_layers", "num_heads", "mlp_dim")
    )
    return dict(zip(keys, (len(layers), heads, mlp_dim), strict=True))


def _grid(source: str, tensors: Tensors, tubelet, has_cls: bool, given: Mapping[str, Any]) -> tuple[int, int]:
    """Time steps and side of the table of positions, which the file keeps flat."""
    if (name := "SpatialTransformer/posembed_input/pos_embedding") in tensors:
        steps = tensors["TemporalTransformer/posembed_input/pos_embedding"]().shape[1] - has_cls
        sizes_of = [(steps, tensors[name]().shape[1] - has_cls)]
    else:
        tokens = tensors["Transformer/posembed_input/pos_embedding"]().shape[1] - has_cls
        sizes_of = [(steps, tokens // steps) for steps in range(1, tokens + 1) if tokens % steps == 0]
    fits = [(steps, math.isqrt(size)) for steps, size in sizes_of if math.isqrt(size) ** 2 == size]
    sizes = given.get("image_size")
    sizes = (sizes, sizes) if isinstance(sizes, int) else sizes
    frames = given.get("sampled_frames") or given.get("num_frames")
    agree = [
        (frames == steps * tubelet[0]) + bool(sizes and tuple(sizes) == (side * tubelet[1], side * tubelet[2]))
        for steps, side in fits
    ]
    if PUBLISHED in fits and tubelet[0] == 2 and max(agree) < 2:
        return PUBLISHED  # one of the two, frames or pixels, is of the model that is wanted
    if any(agree):
        return fits[agree.index(max(agree))]
    # What was published has 32 frames in tubelets of 2.
    likely = [fit for fit in fits if fit[0] == 16 and fit[1] >= 7] or [fit for fit in fits if fit[0] > 1 and fit[1] > 3]
    likely = likely if len(fits) > 1 else fits
    grids = ", ".join(f"{steps} x {side} x {side}" for steps, side in fits) or "no square grid"
    if len(likely) != 1:
        raise UserError(f"{source}: its positions could be of {grids} tokens; give num_frames or image_size")
    (steps, side), *_ = likely
    if len(fits) > 1 and steps != 16:
        taken = f"taken as {steps} x {side} x {side}. Give num_frames to decide"
        warnings.warn(f"{source}: its positions could be of {grids} tokens; {taken}", stacklevel=2)
    return steps, side


def _heads(tensors: Tensors, given: Mapping[str, Any]) -> Any:
    """One head; or those given, or Epic-Kitchens' two, whose classes stand side by side in one layer."""
    if "output_projection/kernel" not in tensors:
        return 1  # reading will say what is missing
    classes = tensors["output_projection/kernel"]().shape[1]
    heads = given.get("num_classes", EPIC_HEADS)
    heads = EPIC_HEADS if heads == EPIC_HEADS else heads  # in the file's order
    return tuple(heads.items()) if isinstance(heads, Mapping) and sum(heads.values()) == classes else classes


def _head_rules(num_classes: Any) -> list[Rule]:
    if isinstance(num_classes, int):
        return [Rule(r"heads/head/(\w+)", (r"output_projection/\1",), SAME)]
    ends = list(itertools.accumulate(count for _, count in num_classes))
    return [
        Rule(rf"heads/{name}/(\w+)", (r"output_projection/\1",), columns(end - count, end))
        for (name, count), end in zip(num_classes, ends, strict=True)
    ]
