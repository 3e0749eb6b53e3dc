"""The models of both papers by name: what each differs in from `ModelConfig`'s defaults."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from vivit_jax.architecture import ModelConfig, Preprocessing
from vivit_jax.errors import UserError
from vivit_jax.schema import convert, nearest

SIZES = {  # width, layers, heads, mlp (ViT and DeiT)
    "ti": (192, 12, 3, 768),
    "s": (384, 12, 6, 1536),
    "b": (768, 12, 12, 3072),
    "l": (1024, 24, 16, 4096),
    "h": (1280, 32, 16, 5120),
}
VIVIT = {  # ViViT section 3.3; FSA and FDPA have no CLS token
    "": dict(attention="joint"),
    "_fe": dict(attention="factorized_encoder", temporal_layers=4),
    "_fsa": dict(attention="factorized_self_attention", pool="mean"),
    "_fdpa": dict(attention="factorized_dot_product", pool="mean"),
}
TIMESFORMER = {  # TimeSformer section 3 and table 1
    "": dict(attention="divided"),
    "_space": dict(attention="space", positions="space"),
    "_time": dict(attention="time"),
    "_joint": dict(attention="joint"),
    "_local_global": dict(attention="local_global"),
    "_axial": dict(attention="axial"),
}
TIMESFORMER_INPUTS = {  # frames, pixels, stride (table 5)
    "b": (8, 224, 32),
    "hr": (16, 448, 16),
    "l": (96, 224, 4),
}


def _size(name: str) -> dict[str, int]:
    return dict(zip(("width", "num_layers", "num_heads", "mlp_dim"), SIZES[name], strict=True))


def list_models() -> list[str]:
    """Names for `create_model`; any patch and tubelet size can stand in a ViViT's name."""
    patches = [(size, patch) for size in SIZES for patch in ((14, 16) if size == "h" else (16, 32))]
    vivit = [f"vivit_{size}{patch}x2{kind}" for size, patch in patches for kind in VIVIT]
    vivit = [name for name in vivit if name != "vivit_ti16x2_fdpa" and name != "vivit_ti32x2_fdpa"]  # 3 heads: odd
    return vivit + [f"timesformer_b{kind}" for kind in TIMESFORMER] + ["timesformer_hr", "timesformer_l"]


def _fields(name: str) -> dict[str, Any]:
    if match := re.fullmatch(r"vivit_(ti|s|b|l|h)(\d+)x(\d+)(|_fe|_fsa|_fdpa)", name):
        size, patch, tubelet, kind = match.groups()
        return _size(size) | dict(patch_size=(int(patch),) * 2, tubelet_size=int(tubelet)) | VIVIT[kind]
    if match := re.fullmatch(rf"timesformer_(b|hr|l)({'|'.join(TIMESFORMER)})", name):
        frames, pixels, _ = TIMESFORMER_INPUTS[match[1]]
        shared = dict(num_frames=frames, image_size=(pixels, pixels), tubelet_size=1, positions="space_time")
        details = dict(gelu="exact", initializer="truncated_normal", position_resize="nearest", stochastic_depth=0.1)
        return _size("b") | shared | details | TIMESFORMER[match[2]]
    raise UserError(f"model.name: there is no model {name!r}{nearest(name, list_models())}")


def model_config(name: str, num_classes: int | dict[str, int], **overrides: Any) -> ModelConfig:
    """The architecture called `name`, with `overrides` of its fields (`image_size` and `patch_size` may be one int).

    Raises:
      UserError: no such name or field, or a value that cannot be honored; the message names the field.
    """
    return ModelConfig(**_fields(name) | _converted(overrides | {"num_classes": num_classes}))


def described(config: ModelConfig) -> dict[str, Any]:
    """`config.model` for an architecture, its classes left aside: the `name` that is nearest, and what differs."""

    def different(name: str) -> dict[str, Any]:
        named, fields = model_config(name, 1), (field.name for field in dataclasses.fields(ModelConfig))
        values = {key: getattr(config, key) for key in fields if getattr(config, key) != getattr(named, key)}
        return {key: value for key, value in values.items() if key != "num_classes"}

    found = {name: different(name) for name in list_models()}
    name = min(found, key=lambda name: len(found[name]))
    return {"name": name, **found[name]}


def override(config: ModelConfig, overrides: Mapping[str, Any]) -> ModelConfig:
    """`config` with some of its fields changed; raises as `model_config` does."""
    return dataclasses.replace(config, **_converted(overrides))


def _converted(overrides: Mapping[str, Any]) -> dict[str, Any]:
    known = {field.name: field.type for field in dataclasses.fields(ModelConfig)}
    fields = {}
    for key, value in overrides.items():
        if key not in known:
            raise UserError(f"model.{key}: no such field{nearest(key, known)}")
        if key in ("image_size", "patch_size") and isinstance(value, int):
            value = (value, value)
        elif key == "num_classes" and isinstance(value, Mapping):
            value = tuple(value.items())
        fields[key] = convert(known[key], value, f"model.{key}")
    return fields


def preprocessing(name: str, config: ModelConfig) -> Preprocessing:
    """How the named model was fed by its authors."""
    if name.startswith("timesformer"):
        stride = TIMESFORMER_INPUTS[name.split("_")[1]][2]
        mean, std = (0.45, 0.45, 0.45), (0.225, 0.225, 0.225)
        how: dict[str, Any] = dict(sampling="span", short_clips="hold")
        return Preprocessing(config.num_frames, stride, config.image_size, mean, std, **how)
    resize = round(min(config.image_size) * 256 / 224)
    return Preprocessing(config.num_frames, 2, config.image_size, resize=resize)
