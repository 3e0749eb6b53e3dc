"""Where activations lie on the mesh of a run, where there is one: the one place where models know of it.

Examples are split over `data` and `fsdp`, heads and the hidden width of MLPs over `tensor`, and the time steps of long
clips over `context`. Attention that folds time into the batch needs nothing of other time steps. What attends over
time gets all of it, for a part of the positions or of the heads, by one all-to-all, and gives it back by another
(DeepSpeed-Ulysses, arXiv 2309.14509).
"""

import math
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jax.experimental.layout import Layout, with_layout_constraint
from jax.sharding import PartitionSpec as P

# TPUs whose matrix units take a quarter of v5e's time, and vector units as long as before. There it pays to lay out, to
# write down and to read more than elsewhere for fewer steps of vector units.
FAST_MATRIX_UNITS = ("TPU v6 lite",)  # v6e
MESH_AXES: dict[str, Any] = {"b": ("data", "fsdp"), "t": "context", "n": "tensor", "m": "tensor"}


def place(x: jax.Array, axes: str) -> jax.Array:
    """`x` with its axes, as in `b t ... n d`, on those of the mesh: batch, time, heads n, hidden width m."""
    first, last = ([MESH_AXES.get(axis) for axis in part.split()] for part in axes.split("..."))
    return _constrained(x, first + [None] * (x.ndim - len(first) - len(last)) + last)


def materialized(x: jax.Array) -> jax.Array:
    """`x`, and in the backward pass its gradient, which TPUs write to memory as they are before they go on."""
    return jax.lax.platform_dependent(x, tpu=jax.lax.optimization_barrier, default=lambda x: x)


def again(x: jax.Array) -> jax.Array:
    """`x` as the backward pass has it, from which GPUs compute again what the forward pass had computed from it: that
    takes them less time than to write it, and to read it."""
    return jax.lax.platform_dependent(x, cuda=jax.lax.optimization_barrier, default=lambda x: x)


def fast_matrix_units() -> bool:
    """Whether the mesh, where there is one, is of such TPUs."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return device is not None and device.device_kind in FAST_MATRIX_UNITS


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def in_order(x: jax.Array, platform: str) -> jax.Array:
    """`x`; where there is a gradient, devices of the platform lay out both in the order of their axes. Left to XLA,
    tokens may lie with examples innermost, as the gradient of their positions would have them, and every product
    transposes them."""
    return x


def _in_order(x: jax.Array, platform: str) -> jax.Array:
    def constrained(x):
        return with_layout_constraint(x, Layout(tuple(range(x.ndim))))

    return jax.lax.platform_dependent(x, **{platform: constrained}, default=lambda x: x)


in_order.defvjp(
    lambda x, platform: (_in_order(x, platform), None), lambda platform, _, change: (_in_order(change, platform),)
)


def place_groups(x: jax.Array, axes: str) -> jax.Array:
    """Places what attends to each other on one device.

    Args:
      axes: of `x`, as in `b (h w) t n d`: batch, groups, the tokens of a group, heads, head width.
    """
    names = re.findall(r"\([^)]*\)|\w", axes)
    spec = [MESH_AXES.get(name) for name in names]
    tokens = len(names) - 3
    if split("t") > 1 and "t" in names[tokens]:
        spec[tokens] = None
        positions = names[1] == "(h w)" and x.shape[1] >= split("t")
        spec[1 if positions else -2] = "context" if positions else ("tensor", "context")
    return _constrained(x, spec)


def split(axis: str) -> int:
    """Over how many devices the mesh, where there is one, splits an axis of MESH_AXES."""
    mesh, axes = jax.sharding.get_abstract_mesh().shape, MESH_AXES[axis]
    return math.prod(mesh.get(name, 1) for name in ([axes] if isinstance(axes, str) else axes))


def only_examples() -> bool:
    """Whether nothing is split but examples, if these are: XLA then finds where activations lie, and told so it has
    more cycles."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.empty or mesh.size == mesh.shape.get("data", 1)


def on_each_device(attend: Callable[..., jax.Array], *heads: jax.Array) -> jax.Array:
    """Runs what the compiler cannot split, such as a kernel, on each device's examples and heads [B, ..., N, L, d]."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return attend(*heads)
    spec = P(MESH_AXES["b"], *[None] * (heads[0].ndim - 4), ("tensor", "context"), None, None)
    return jax.shard_map(attend, in_specs=(spec,) * len(heads), out_specs=spec, check_vma=False)(*heads)


def _constrained(x: jax.Array, spec: list[Any]) -> jax.Array:
    if only_examples():
        return x
    # A CLS token is one for all time steps.
    spec = [None if axes == "context" and size == 1 else axes for axes, size in zip(spec, x.shape, strict=True)]
    return jax.lax.with_sharding_constraint(x, P(*spec))
