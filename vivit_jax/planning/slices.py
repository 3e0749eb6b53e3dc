"""Slices of TPUs: what their makers say of them, and their devices, to compile for where there are none."""

import os
import re
from importlib import metadata
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies

from vivit_jax.errors import UserError, first_line


class Chip(NamedTuple):
    """What its maker says of it; None where it says nothing."""

    hbm: float  # GiB that the compiler lets a device use
    flops: float  # bfloat16, per second and device
    clock: float | None  # Hz
    interconnect: float  # bytes per second and device


CHIPS = {
    "v4": Chip(30.75, 275e12, 1.05e9, 300e9),
    "v5e": Chip(15.75, 197e12, 1.5e9, 200e9),
    "v5p": Chip(95.74, 459e12, 1.75e9, 600e9),
    "v6e": Chip(31.25, 918e12, 1.75e9, 448e9),
    "tpu7x": Chip(94.75, 1153e12, None, 600e9),  # two devices make a chip
}


def slice_devices(topology: str) -> list[Any]:
    """The devices of a slice such as `v5e:16x16`, to compile for; there is no TPU to be found.

    Raises:
      UserError: there is no such slice, or the extra `tpu` is missing.
    """
    name, _, shape = topology.partition(":")
    if name not in CHIPS or not re.fullmatch(r"\d+(x\d+)+", shape):
        raise UserError(f"--topology: {topology!r} is not one of {', '.join(CHIPS)} with a shape, as in v5e:16x16")
    try:
        metadata.version("libtpu")
    except metadata.PackageNotFoundError:
        raise UserError("--mode=plan: needs the compiler; pip install 'vivit_jax[tpu]'") from None
    # So that libtpu neither looks for a cloud's metadata nor for a TPU that another process holds.
    quiet = {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1", "TPU_STDERR_LOG_LEVEL": "3"}
    os.environ.update({"TPU_WORKER_HOSTNAMES": "localhost", "TPU_ACCELERATOR_TYPE": "v5litepod-4", **quiet})
    jax.config.update("jax_platforms", "cpu")
    options = {"chip_config_name": "megacore"} if name == "v4" else {}
    try:
        return list(topologies.get_topology_desc(topology, "tpu", **options).devices)
    except Exception as error:  # whatever libtpu makes of it
        raise UserError(f"--topology: there is no {topology!r} ({first_line(error)})") from error
