"""`--search`: a faster plan that fits."""

import itertools
import math
from collections.abc import Iterator
from typing import Any

from vivit_jax.config import Config, from_dict, to_dict
from vivit_jax.errors import UserError
from vivit_jax.planning.plan import Plan, make_plan


def fastest(config: Config, plan: Plan) -> tuple[Config, Plan]:
    """Changes one thing after another, and keeps what makes the step faster and fits.

    The batch stays what the recipe says; what changes is how it is split and what is kept of it. Plans are compared
    by the compiler's estimate and the collectives' least time together: how much of it is hidden is not known.
    """
    print(f"{_summary(plan)}: as configured")
    for options in (parts, meshes, remats, scans):
        for change in options(config, plan):
            candidate = changed(config, change)
            try:
                other = make_plan(candidate, plan.topology, plan.step)
            except UserError as error:  # it does not divide, or the compiler fails
                print(f"{'cannot be planned':>33}: {' '.join(flags_of(change))} ({error})", flush=True)
                continue
            better = _key(other) < _key(plan)
            print(f"{_summary(other)}: {' '.join(flags_of(change))}{' <- better' if better else ''}", flush=True)
            if better:
                config, plan = candidate, other
    return config, plan


Change = dict[str, dict[str, Any]]  # section -> field -> value


def meshes(config: Config, plan: Plan) -> Iterator[Change]:
    """Other ways to lay out as many devices: parameters whole or split, and the rest to time or to heads."""
    size = config.train.batch_size // config.train.accumulate if plan.step == "train" else plan.batch_size
    examples = math.gcd(plan.devices, size)
    rest = plan.devices // examples
    for fsdp, context in itertools.product({1, examples}, {1, rest}):
        sizes = {"fsdp": fsdp, "data": examples // fsdp, "context": context, "tensor": rest // context}
        if sizes != {name: plan.mesh[name] for name in sizes}:
            yield {"mesh": sizes}


def remats(config: Config, plan: Plan) -> Iterator[Change]:
    """What the backward pass of training computes again."""
    now = config.model.architecture().remat
    if plan.step == "train":
        yield from ({"model": {"remat": policy}} for policy in ("none", "attention", "dots", "full") if policy != now)


def scans(config: Config, plan: Plan) -> Iterator[Change]:
    """One layer in a loop, or all of them in a row."""
    yield {"model": {"scan": not config.model.architecture().scan}}


def parts(config: Config, plan: Plan) -> Iterator[Change]:
    """More and fewer clips on a chip at a time, in training."""
    now = config.train.accumulate
    for accumulate in (now * 2, now // 2) if plan.step == "train" else ():
        if accumulate and config.train.batch_size % accumulate == 0:
            yield {"train": {"accumulate": accumulate}}


def changed(config: Config, change: Change) -> Config:
    values = to_dict(config)
    for section, fields in change.items():
        values[section] = values[section] | fields
    return from_dict(values)


def flags_of(change: Change) -> list[str]:
    return [
        f"--config.{section}.{name}={value}" for section, fields in change.items() for name, value in fields.items()
    ]


def flags(config: Config) -> list[str]:
    """What the search may have set."""
    names = {"mesh": ("data", "fsdp", "context", "tensor"), "train": ("accumulate",)}
    change: Change = {
        section: {name: getattr(getattr(config, section), name) for name in of} for section, of in names.items()
    }
    architecture = config.model.architecture()
    return flags_of(change | {"model": {"remat": architecture.remat, "scan": architecture.scan}})


def _key(plan: Plan) -> tuple[bool, float]:
    return not plan.fits, plan.module.cycles / (plan.chip.clock or 1e9) + plan.exchange_seconds


def _summary(plan: Plan) -> str:
    used = sum(plan.memory.values()) / 2**30
    return (
        f"{plan.module.cycles:>14,} cycles, {used:6.2f} GiB" if plan.fits else f"{'does not fit':>21}, {used:6.2f} GiB"
    )
