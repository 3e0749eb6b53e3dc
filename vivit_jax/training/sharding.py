"""One mesh, and where states and batches lie on it; where activations do is said in `models/layout.py`."""

import math
import re
from collections.abc import Callable, Sequence
from functools import wraps
from itertools import pairwise
from typing import Any

import jax
import numpy as np
from jax.experimental.mesh_utils import create_device_mesh
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from vivit_jax.architecture import ModelConfig
from vivit_jax.errors import UserError
from vivit_jax.sections import Mesh

# Parameter path -> its axis that `tensor` splits: heads, and the hidden width of an MLP. Optimizer state has the same
# paths.
TENSOR = {
    r"attention/\d+/(query|key|value)/kernel$": 1,
    r"attention/\d+/(query|key|value)/bias$": 0,
    r"attention/\d+/out/kernel$": 0,
    r"mlp/up/kernel$": 1,
    r"mlp/up/bias$": 0,
    r"mlp/down/kernel$": 0,
}


def make_mesh(
    config: Mesh, examples: int, model: ModelConfig, devices: Sequence[Any] | None = None
) -> jax.sharding.Mesh:
    """A mesh over all devices of all processes, or over `devices`, for so many examples at a time.

    Axes of -1 take, in their order, as many of the devices that are left as they can use: `data` those that a batch
    divides over, `context` those that frames and time steps do, `tensor` those that heads and MLPs do.

    Raises:
      UserError: the axes do not multiply to the number of devices, or an axis does not divide what it splits.
    """
    count = len(devices) if devices else jax.device_count()
    axes = {name: getattr(config, name) for name in ("data", "fsdp", "context", "tensor")}
    usable = {
        "data": examples // axes["fsdp"],
        "context": math.gcd(model.num_frames, model.grid[0]),
        "tensor": heads_and_mlps(model),
    }
    left = count // math.prod(size for size in axes.values() if size > 0)
    for name in ("data", "context", "tensor"):
        if axes[name] == -1:
            axes[name] = math.gcd(left, usable[name])
            left //= axes[name]
    if math.prod(axes.values()) != count:
        sizes = " x ".join(f"{name} {size}" for name, size in axes.items())
        raise UserError(f"config.mesh: {sizes} does not make {count} devices")
    for name, what in (("context", "frames and time steps"), ("tensor", "heads and MLP widths")):
        if usable[name] % axes[name]:
            raise UserError(f"config.mesh.{name}: {axes[name]} does not divide {what}, whose divisor is {usable[name]}")
    # An axis may be a part of one of the slice's: `jax.make_mesh` has no place for 32 x 4 x 2 on v5p:8x8x4.
    placed = create_device_mesh(tuple(axes.values()), devices or jax.devices(), allow_split_physical_axes=True)
    return jax.sharding.Mesh(placed, tuple(axes), axis_types=(AxisType.Auto,) * len(axes))


def heads_and_mlps(model: ModelConfig) -> int:
    """What the numbers of heads, and the hidden widths, of a model's encoders have as their greatest common divisor."""
    sizes = model.num_heads, model.temporal_heads, model.mlp_dim, model.temporal_mlp_dim  # 0: as the other encoder
    return math.gcd(*sizes)


def clip_sharding(mesh: jax.sharding.Mesh, name: str, ndim: int) -> NamedSharding:
    """Where the array called `name` of a batch lies: examples on `data` and `fsdp`, a video's frames on `context`."""
    rows = ("data", "fsdp")
    if name != "video":
        return NamedSharding(mesh, P(rows))
    return NamedSharding(mesh, P(rows, *[None] * (ndim - 5), "context"))


def replicated(mesh: jax.sharding.Mesh) -> NamedSharding:
    return NamedSharding(mesh, P())


def state_sharding(mesh: jax.sharding.Mesh, state):
    """Splits each array of a (possibly abstract) state as TENSOR says, and along its largest other axis over `fsdp`."""
    fsdp, tensor = mesh.shape["fsdp"], mesh.shape["tensor"]

    def rule(path, x) -> NamedSharding:
        spec: list[str | None] = [None] * len(x.shape)
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        for pattern, axis in TENSOR.items() if tensor > 1 else ():
            if re.search(pattern, name):
                spec[axis] = "tensor"
        free = [i for i, size in enumerate(x.shape) if fsdp > 1 and size % fsdp == 0 and spec[i] is None]
        if free:
            spec[max(free, key=lambda i: x.shape[i])] = "fsdp"
        return NamedSharding(mesh, P(*spec))

    return jax.tree_util.tree_map_with_path(rule, state)


def on_mesh(step: Callable, mesh: jax.sharding.Mesh) -> Callable:
    """`step`, traced where models can ask for the mesh."""

    @wraps(step)
    def traced(*arguments):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return step(*arguments)

    return traced


def own_rows(mesh: jax.sharding.Mesh, batch_size: int) -> slice:
    """Of a global batch, the examples that this process has to read; several may read the same, for other frames.

    Raises:
      UserError: they are not in one piece: the devices of a process lie apart on the mesh.
    """
    where = NamedSharding(mesh, P(("data", "fsdp"))).addressable_devices_indices_map((batch_size,))
    pieces = sorted({index[0].indices(batch_size)[:2] for index in where.values() if index})
    if any(stop != start for (_, stop), (start, _) in pairwise(pieces)):
        raise UserError("config.mesh: the devices of a process do not hold neighboring examples; change its axes")
    return slice(pieces[0][0], pieces[-1][1])


def to_devices(batch: dict[str, Any], mesh: jax.sharding.Mesh, batch_size: int) -> dict[str, Any]:
    """The global batch of `batch_size`, of which each process holds the rows that it has to read."""
    first = own_rows(mesh, batch_size).start

    def put(path, x: np.ndarray) -> jax.Array:
        def part(index):
            rows = slice(*(n - first for n in index[0].indices(batch_size)[:2]))
            return x[(rows, *index[1:])]

        shape = (batch_size, *x.shape[1:])
        return jax.make_array_from_callback(shape, clip_sharding(mesh, path[0].key, x.ndim), part)

    return jax.tree_util.tree_map_with_path(put, batch)


def check_batch(mesh: jax.sharding.Mesh, section: str, batch_size: int, parts: int = 1) -> None:
    """Raises UserError where a batch, in so many parts one after another, does not divide over the devices."""
    devices = mesh.shape["data"] * mesh.shape["fsdp"]
    if batch_size % (devices * parts):
        split = f" in {parts} parts" if parts > 1 else ""
        raise UserError(f"config.{section}.batch_size: {batch_size}{split} does not divide over {devices} devices")
