"""Schedules and optimizers of both papers' recipes."""

import re
from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vivit_jax.sections import Optimizer, Schedule


def make_schedule(config: Schedule, steps_per_epoch: float, total_steps: int) -> optax.Schedule:
    """Step -> learning rate: linear from 0 over the warm-up, then as `config.name` says.

    A run that is not longer than its warm-up, as one that tries a recipe, reaches the rate at its last step.
    """
    peak, warmup = config.learning_rate, min(round(config.warmup_epochs * steps_per_epoch), total_steps - 1)
    drops = Counter(round(epoch * steps_per_epoch) - warmup for epoch in config.step_epochs)  # several in short epochs
    rest = {
        "cosine": lambda: optax.cosine_decay_schedule(peak, total_steps - warmup),
        "constant": lambda: optax.constant_schedule(peak),
        "step": lambda: optax.piecewise_constant_schedule(
            peak, {step: config.step_factor**times for step, times in drops.items()}
        ),
    }[config.name]()
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), rest], [warmup]) if warmup else rest


def path_name(path) -> str:
    """`encoder/blocks/0/mlp/up/kernel`."""
    return "/".join(str(getattr(key, "key", key)) for key in path)


def make_optimizer(config: Optimizer, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Clips the global gradient, which is the mean over all devices, then SGD or AdamW.

    What `config.freeze` names is not part of it: it has no share in the global norm, and no state.
    """

    def decays(params):
        return jax.tree.map(lambda spared: not spared, named(config.no_decay, params))

    steps = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
    if config.name == "adamw":
        options: dict = dict(weight_decay=config.weight_decay, mask=decays, mu_dtype=config.momentum_dtype)
        steps.append(optax.adamw(schedule, config.b1, config.b2, **options))
    else:  # L2 as in both releases: the decay joins the gradient, and so the momentum.
        steps += [optax.add_decayed_weights(config.weight_decay, decays)] if config.weight_decay else []
        dtype = jnp.dtype(config.momentum_dtype)
        steps.append(optax.sgd(schedule, config.momentum, config.nesterov, accumulator_dtype=dtype))
    # Outside of what is trained, where depths could not be counted.
    scale = [optax.stateless(_scale_layers(config.layer_decay))] if config.layer_decay < 1 else []
    if not config.freeze:
        return optax.chain(*steps, *scale)
    groups: dict[Any, optax.GradientTransformation] = {True: optax.set_to_zero(), False: optax.chain(*steps)}
    trained = optax.transforms.partition(groups, lambda params: named(config.freeze, params))
    return optax.chain(trained, *scale) if scale else trained


def named(pattern: str, params: Any) -> Any:
    """Which parameters a regular expression names, "" none: a tree of bools."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: bool(pattern) and bool(re.search(pattern, path_name(path))), params
    )


def hold(pattern: str, params: Any) -> Any:
    """The parameters, with no gradient for what is frozen: what only it would need is not computed."""
    return jax.tree.map(lambda x, stays: jax.lax.stop_gradient(x) if stays else x, params, named(pattern, params))


def layer_depths(params: Any) -> tuple[Any, int]:
    """How many blocks lie below what a parameter adds to, and the depth of the heads, which is one more than blocks.

    Embeddings, CLS and positions lie at 0, block i at i + 1, the last norm with the heads (as in BEiT). The blocks of
    a temporal encoder lie on those of the spatial one; its CLS and positions, and the norm below it, at its bottom.
    """
    names = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    found = [re.match(r"(encoder|temporal_encoder)/blocks/(\d+)/", name) for name in names]
    layers = {
        encoder: 1 + max((int(match[2]) for match in found if match and match[1] == encoder), default=-1)
        for encoder in ("encoder", "temporal_encoder")
    }
    below, top = layers["encoder"], sum(layers.values()) + 1

    def depth(path, _) -> int:
        encoder, _, rest = path_name(path).partition("/")
        if encoder == "embedding":
            return 0
        if encoder not in layers or (rest.startswith("norm/") and (encoder != "encoder" or below == top - 1)):
            return top
        start = below if encoder == "temporal_encoder" else 0
        if block := re.match(r"blocks/(\d+)/", rest):
            return start + int(block[1]) + 1
        return below if rest.startswith("norm/") else start

    return jax.tree_util.tree_map_with_path(depth, params), top


def _scale_layers(decay: float):
    def scale(updates, params):
        depths, top = layer_depths(params)
        return jax.tree.map(lambda x, depth: x * decay ** (top - depth), updates, depths)

    return scale
