"""One mesh, and where the arrays of a run lie on it; models know nothing of it."""

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from vivit_jax.errors import UserError
from vivit_jax.sections import Mesh


def make_mesh(config: Mesh) -> jax.sharding.Mesh:
    """A mesh over all devices of all processes.

    Raises:
      UserError: the axes do not multiply to the number of devices.
    """
    devices, sizes = jax.device_count(), [config.data, config.fsdp]
    known = int(np.prod([size for size in sizes if size > 0]))
    sizes = [size if size > 0 else devices // known for size in sizes]
    if int(np.prod(sizes)) != devices:
        raise UserError(f"config.mesh: data {config.data} x fsdp {config.fsdp} does not make {devices} devices")
    return jax.make_mesh(tuple(sizes), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)


def batch_sharding(mesh: jax.sharding.Mesh) -> NamedSharding:
    """Examples lie on both axes."""
    return NamedSharding(mesh, P(("data", "fsdp")))


def replicated(mesh: jax.sharding.Mesh) -> NamedSharding:
    return NamedSharding(mesh, P())


def state_sharding(mesh: jax.sharding.Mesh, state):
    """Splits each array of a (possibly abstract) state along its largest axis that divides over `fsdp`."""
    parts = mesh.shape["fsdp"]

    def rule(x) -> NamedSharding:
        axes = [i for i, size in enumerate(x.shape) if parts > 1 and size % parts == 0]
        widest = max(axes, key=lambda i: x.shape[i], default=None)
        return NamedSharding(mesh, P(*("fsdp" if i == widest else None for i in range(len(x.shape)))))

    return jax.tree.map(rule, state)


def to_devices(batch: dict[str, Any], mesh: jax.sharding.Mesh) -> dict[str, Any]:
    """The global batch, of which each process holds a part."""
    sharding = batch_sharding(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)


def check_batch(mesh: jax.sharding.Mesh, section: str, batch_size: int, parts: int = 1) -> None:
    """Raises UserError where a batch, in so many parts one after another, does not divide over the devices."""
    if batch_size % (mesh.size * parts):
        split = f" in {parts} parts" if parts > 1 else ""
        raise UserError(f"config.{section}.batch_size: {batch_size}{split} does not divide over {mesh.size} devices")
