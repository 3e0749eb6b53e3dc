"""Parameters of the original implementations' golden files, put into our models."""

import numpy as np

from vivit_jax.checkpoints import scenic, timesformer
from vivit_jax.checkpoints.conversion import match
from vivit_jax.checkpoints.parameters import filled, paths
from vivit_jax.models.attention import SCHEMES


def _extra_steps(steps: int) -> list:
    """The names that the readings of the paper's unreleased schemes give to all steps but the last."""
    block, layer = r"encoder/blocks/(\d+)/", r"blocks.\1."
    rules = []
    for i in range(steps - 1):
        ours = f"{block}attention/{i}"
        rules += timesformer.norm(f"{ours}/norm", f"{layer}extra_norm.{i}")
        rules += timesformer.fused_attention(ours, f"{layer}extra_attn.{i}.qkv", f"{layer}extra_attn.{i}.proj")
        rules += timesformer.linear(f"{ours}/project", f"{layer}extra_fc.{i}")
    last = f"{block}attention/{steps - 1}"
    rules += timesformer.norm(f"{last}/norm", f"{layer}norm1")
    return rules + timesformer.fused_attention(last, f"{layer}attn.qkv", f"{layer}attn.proj")


def to_ours(golden: dict, model) -> dict:
    """Golden arrays (all parameters, or some gradients) under our paths."""
    if any(".extra_" in name for name in golden):
        rules = _extra_steps(len(SCHEMES[model.config.attention].steps)) + timesformer.rules(model.config)
    elif any(name.endswith(".weight") for name in golden):
        rules = timesformer.rules(model.config)
    else:
        kernel = golden.get("embedding/kernel", np.zeros((1,) * 5))
        rules = scenic.rules(model.config, image_kernel=kernel.ndim == 4)
    ours = {}
    for path, param in paths(model).items():
        names, codec = match(path, rules)
        if all(name in golden for name in names):
            ours[path] = codec.load([golden[name] for name in names], param.shape)
            assert ours[path].shape == param.shape, (path, param.shape, ours[path].shape)
    return ours


def load(golden: dict, model):
    """Fills every parameter of `model`."""
    ours = to_ours(golden, model)
    assert ours.keys() == paths(model).keys(), sorted(ours.keys() ^ paths(model).keys())
    return filled(model, ours)
