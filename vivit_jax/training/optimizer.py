"""Schedules and optimizers of both papers' recipes."""

import re

import jax
import jax.numpy as jnp
import optax

from vivit_jax.sections import Optimizer, Schedule


def make_schedule(config: Schedule, steps_per_epoch: float, total_steps: int) -> optax.Schedule:
    """Step -> learning rate: linear from 0 over the warm-up, then as `config.name` says."""
    peak, warmup = config.learning_rate, min(round(config.warmup_epochs * steps_per_epoch), total_steps - 1)
    rest = {
        "cosine": lambda: optax.cosine_decay_schedule(peak, total_steps - warmup),
        "constant": lambda: optax.constant_schedule(peak),
        "step": lambda: optax.piecewise_constant_schedule(
            peak, {round(epoch * steps_per_epoch) - warmup: config.step_factor for epoch in config.step_epochs}
        ),
    }[config.name]()
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), rest], [warmup]) if warmup else rest


def path_name(path) -> str:
    """`encoder/blocks/0/mlp/up/kernel`."""
    return "/".join(str(getattr(key, "key", key)) for key in path)


def make_optimizer(config: Optimizer, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Clips the global gradient, which is the mean over all devices, then SGD or AdamW."""

    def decays(params):
        return jax.tree_util.tree_map_with_path(lambda path, _: not re.search(config.no_decay, path_name(path)), params)

    clip = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
    if config.name == "adamw":
        options: dict = dict(weight_decay=config.weight_decay, mask=decays, mu_dtype=config.momentum_dtype)
        adamw = optax.adamw(schedule, config.b1, config.b2, **options)
        return optax.chain(*clip, adamw)
    # L2 as in both releases: the decay joins the gradient, and so the momentum.
    decay = [optax.add_decayed_weights(config.weight_decay, decays)] if config.weight_decay else []
    sgd = optax.sgd(schedule, config.momentum, config.nesterov, accumulator_dtype=jnp.dtype(config.momentum_dtype))
    return optax.chain(*clip, *decay, sgd)
