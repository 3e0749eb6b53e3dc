"""What `--mode=plan` prints and writes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vivit_jax.config import Config
from vivit_jax.data.datasets import known_classes
from vivit_jax.errors import UserError
from vivit_jax.files import write_bytes, write_json
from vivit_jax.planning.plan import Plan, make_plan
from vivit_jax.planning.search import fastest, flags
from vivit_jax.summary import spoken


def report(config: Config, topology: str, step: Any, json: Path | None, hlo: Path | None, *, search: bool) -> None:
    """Plans, prints, and writes what was asked for.

    Raises:
      UserError: there is no such slice, the config does not fit on its devices, or a file cannot be written.
    """
    if known_classes(config.data) is None and "num_classes" not in config.model.overrides:
        print("config.model.num_classes is not set and the dataset is not there: the head is planned with one class")
    plan = make_plan(config, topology, step)
    if search:
        config, plan = fastest(config, plan)
    for line in lines(plan):
        print(line)
    if search:
        print(f"\n{'The fastest that fits' if plan.fits else 'Nothing fits; the nearest'}: {' '.join(flags(config))}")
    try:
        if json:
            write_json(json, plan.as_dict() | ({"flags": flags(config)} if search else {}))
        if hlo:
            write_bytes(hlo, plan.text.encode())
    except OSError as error:
        raise UserError(f"--plan_json, --plan_hlo: cannot write to {error.filename}: {error.strerror}") from error


def lines(plan: Plan) -> Iterator[str]:
    """A plan for people; everything that is an estimate says so."""
    gib, facts = 2**30, plan.as_dict()
    mesh = " x ".join(f"{name} {size}" for name, size in plan.mesh.items() if size > 1) or "one device"
    yield f"{plan.topology}: {plan.chips} chips, {plan.step} step of {plan.batch_size} clips, {mesh}"
    verdict = "fits" if plan.fits else "DOES NOT FIT"
    used, limit = facts["hbm_bytes_per_chip"] / gib, facts["hbm_limit_bytes"] / gib
    kinds = ", ".join(f"{kind} {size / gib:.2f}" for kind, size in facts["hbm_bytes_by_kind"].items())
    yield f"{verdict}: {used:.2f} of {limit:.2f} GiB HBM per chip ({kinds}; temporaries are activations and scratch)"
    if not plan.fits:
        yield "less of it: config.model.remat, config.train.accumulate, config.mesh.fsdp or context, a larger slice"
        return
    accessed, traffic = (f"{n / 1e9:,.1f} GB" for n in (plan.module.bytes_accessed, plan.module.hbm_traffic))
    yield f"multiply-adds: {spoken(plan.multiply_adds)} per clip forward"
    yield f"bytes accessed per device: {accessed}, of which {traffic} from and to HBM"
    yield f"compiler's estimate: {plan.module.cycles:,} cycles per step{_rates(plan)}"
    module = plan.module
    parts = (f"{n} {kind} {module.collective_bytes[kind] / 2**20:,.1f} MiB" for kind, n in module.collectives.items())
    collectives = ", ".join(parts)
    least = f", at least {plan.exchange_seconds * 1e3:.2f} ms where nothing hides them" if collectives else ""
    yield f"collectives, not in the estimate: {collectives or 'none'}{least}"
    if plan.module.kernels:
        yield f"custom kernels, which the compiler does not price: {plan.module.kernels} calls; the estimate is too low"
    if plan.module.unknown_loops:
        yield f"loops of unknown length, counted once: {plan.module.unknown_loops}; the estimate is too low"
    yield f"jax {facts['jax']}, libtpu {facts['libtpu']}; nothing was run"


def _rates(plan: Plan) -> str:
    if plan.clips_per_second is None or plan.seconds is None:
        return "; its maker does not say the clock, so there is no estimate of time"
    return (
        f", hence {plan.seconds * 1e3:,.1f} ms, {plan.clips_per_second:,.0f} clips/s, "
        f"{plan.utilization:.1%} of the peak (all estimates)"
    )
