"""Parameters of the original implementations' golden files, put into our models."""

import re

import jax.numpy as jnp
import numpy as np
from flax import nnx

# Golden name -> our path; {e} encoder, {i} layer. Attention kernels are joined below.
SCENIC = [
    (r"embedding/(kernel|bias)", r"embedding/\1"),
    (r"cls(?:_SpatialTransformer)?", r"encoder/cls"),
    (r"cls_TemporalTransformer", r"temporal_encoder/cls"),
    (r"(?:Spatial)?Transformer/(.*)", r"encoder/\1"),
    (r"TemporalTransformer/(.*)", r"temporal_encoder/\1"),
    (r"(.*)encoder_norm/(.*)", r"\1norm/\2"),
    (r"(.*)encoderblock_(\d+)/(.*)", r"\1blocks/\2/\3"),
    (r"(.*)LayerNorm_(?:1|mlp)/(.*)", r"\1mlp/norm/\2"),
    (r"(.*)LayerNorm_(?:0|space)/(.*)", r"\1attention/SPACE/norm/\2"),
    (r"(.*)LayerNorm_time/(.*)", r"\1attention/TIME/norm/\2"),
    (r"(.*)MlpBlock(?:_0)?/Dense_0/(.*)", r"\1mlp/up/\2"),
    (r"(.*)MlpBlock(?:_0)?/Dense_1/(.*)", r"\1mlp/down/\2"),
    (r"(.*)MultiHeadDotProductAttention_(?:0|space)/(.*)", r"\1attention/SPACE/\2"),
    (r"(.*)MultiHeadDotProductAttention_time/(.*)", r"\1attention/TIME/\2"),
    (r"output_projection/(.*)", r"heads/head/\1"),
]
TORCH = [
    (r"cls_token", "encoder/cls"),
    (r"patch_embed.proj.(weight|bias)", r"embedding/\1"),
    (r"(blocks\..*|norm\..*|pos_embed|time_embed)", r"encoder/\1"),
    (r"(.*)blocks\.(\d+)\.(.*)", r"\1blocks/\2/\3"),
    (r"(.*)norm1\.(.*)", r"\1LAST/norm/\2"),
    (r"(.*)temporal_LAST/norm/(.*)", r"\1attention/0/norm/\2"),
    (r"(.*)extra_norm\.(\d)\.(.*)", r"\1attention/\2/norm/\3"),
    (r"(.*)(?:temporal_attn|extra_attn\.0)\.(.*)", r"\1attention/0/\2"),
    (r"(.*)extra_attn\.(\d)\.(.*)", r"\1attention/\2/\3"),
    (r"(.*)(?:temporal_fc|extra_fc\.0)\.(.*)", r"\1attention/0/project/\2"),
    (r"(.*)extra_fc\.(\d)\.(.*)", r"\1attention/\2/project/\3"),
    (r"(.*/)attn\.(.*)", r"\1LAST/\2"),
    (r"(.*)norm2\.(.*)", r"\1mlp/norm/\2"),
    (r"(.*)mlp\.fc1\.(.*)", r"\1mlp/up/\2"),
    (r"(.*)mlp\.fc2\.(.*)", r"\1mlp/down/\2"),
    (r"head\.(.*)", r"heads/head/\1"),
    (r"(.*)proj\.(.*)", r"\1out/\2"),
    (r"(.*)\.(.*)", r"\1/\2"),
]


def _rename(name: str, table, order: dict[str, str]) -> str:
    for pattern, path in table:
        if re.fullmatch(pattern, name):
            name = re.sub(f"^{pattern}$", path, name)
    for key, index in order.items():
        name = name.replace(key, f"attention/{index}" if key == "LAST" else index)
    return name


def _from_scenic(golden: dict, order) -> dict:
    params, joined = {}, {}
    for name, value in golden.items():
        path = _rename(name, SCENIC, order)
        if match := re.fullmatch(r"(.*)/(query|key|value)/(kernel|bias)", path):
            joined.setdefault(f"{match[1]}/qkv" + "_bias" * (match[3] == "bias"), {})[match[2]] = value
        elif path.endswith("out/kernel") or path == "embedding/kernel":
            shape = (-1, value.shape[-1]) if path.endswith("out/kernel") else ((1,) * (5 - value.ndim) + value.shape)
            params[path] = value.reshape(shape)
        else:
            params[path] = value
    return params | {path: np.stack([x["query"], x["key"], x["value"]]) for path, x in joined.items()}


def _from_torch(golden: dict, order, heads: int) -> dict:
    params = {}
    for name, value in golden.items():
        path = _rename(name, TORCH, order)
        width = value.shape[-1]
        if path.endswith("qkv/weight"):
            params[path[: -len("/weight")]] = value.reshape(3, heads, -1, width).transpose(0, 3, 1, 2)
        elif path.endswith("qkv/bias"):
            params[path.replace("/bias", "_bias")] = value.reshape(3, heads, -1)
        elif path == "embedding/weight":
            params["embedding/kernel"] = value.transpose(2, 3, 1, 0)[None]
        elif path.endswith("norm/weight"):
            params[path.replace("weight", "scale")] = value
        elif path.endswith("/weight"):
            params[path.replace("weight", "kernel")] = value.T
        else:
            params[path] = value
    return params


def _split_positions(params: dict, grids: dict[str, tuple[int, int, int]]) -> dict:
    """The originals keep CLS's position as entry 0 of one flat table."""
    for encoder, grid in grids.items():
        for name in ("posembed_input/pos_embedding", "pos_embed"):
            table = params.pop(f"{encoder}/{name}", None)
            if table is None:
                continue
            table = table[0]
            if table.shape[0] % 2 or table.shape[0] > np.prod(grid):
                params[f"{encoder}/positions/cls"], table = table[:1], table[1:]
            params[f"{encoder}/positions/space"] = table.reshape(-1, *grid[1:], table.shape[-1])
        if (table := params.pop(f"{encoder}/time_embed", None)) is not None:
            params[f"{encoder}/positions/time"] = table[0][:, None, None]
    return {k: v[0] if k.endswith("encoder/cls") else v for k, v in params.items()}


def to_ours(golden: dict, model) -> dict:
    """Golden arrays (parameters or gradients) under our paths."""
    config = model.config
    steps = [attention.step.axes for attention in model.encoder.blocks[0].attention]
    order = {"TIME": str(steps.index(("time",)) if ("time",) in steps else 0), "LAST": str(len(steps) - 1)}
    order["SPACE"] = str(steps.index(("space",)) if ("space",) in steps else 0)
    torch = any(name == "pos_embed" or ".weight" in name for name in golden)
    params = _from_torch(golden, order, config.num_heads) if torch else _from_scenic(golden, order)
    return _split_positions(params, {"encoder": config.grid, "temporal_encoder": (config.grid[0], 1, 1)})


def flat(state) -> dict:
    return {"/".join(map(str, path)): value for path, value in nnx.to_flat_state(state)}


def load(golden: dict, model):
    """Fills every parameter of `model`; every golden array is used."""
    ours, params = to_ours(golden, model), flat(nnx.state(model, nnx.Param))
    assert ours.keys() == params.keys(), sorted(ours.keys() ^ params.keys())
    for path, param in params.items():
        assert param.shape == ours[path].shape, (path, param.shape, ours[path].shape)
        param[...] = jnp.asarray(ours[path])
    return model
