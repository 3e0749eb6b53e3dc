"""Attention on NVIDIA's GPUs by a kernel of cuDNN that JAX calls: weights are never in memory, backwards neither."""

import math
from functools import cache
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vivit_jax.models.layout import on_each_device, split

SHORTEST = 64  # queries; it computes with so many at a time, and XLA's products are faster for the few of a time step
WIDEST = 128  # entries of a head
OLDEST = 8.0  # compute capability
MASKS = jax.__version_info__ >= (0, 11)  # before, JAX computes a gradient of masks too


def takes(length: int, head_width: int, dtype: Any) -> bool:
    """Whether the kernel is there and is best for so many queries of such heads, which no mesh splits."""
    fits = jnp.dtype(dtype).itemsize == 2 and head_width <= WIDEST and head_width % 8 == 0
    return fits and length >= SHORTEST and split("n") * split("t") == 1 and _is_there()


@cache
def _is_there() -> bool:
    try:
        return all(float(gpu.compute_capability) >= OLDEST for gpu in jax.local_devices(backend="cuda"))
    except RuntimeError:  # there is no such platform
        return False


def cudnn_attention(
    q: Float[Array, "*G L N d"],
    k: Float[Array, "*G M N d"],
    v: Float[Array, "*G M N d"],
    count: int = 0,
    own: int = 0,
    implementation: Literal["cudnn", "xla"] = "cudnn",
) -> Float[Array, "*G L N d"]:
    """softmax(q k' / sqrt(d)) v.

    Args:
      count: of keys that are seen, where these are the first and not all.
      own: how many in a row see each other alone, if not all.
      implementation: "xla" computes the same on any platform, to test it.
    """
    part = np.arange(q.shape[-3]) // own if own else None
    mask = None if part is None else jnp.asarray(part[:, None] == part)

    def attend(*heads: jax.Array) -> jax.Array:
        rows = [jnp.swapaxes(x, -2, -3) for x in heads]
        keys, length = rows[1].shape[-3], rows[0].shape[-3]
        seen = jnp.full(math.prod(rows[0].shape[:-3]), count or keys) if count or keys % 2 else None
        flat = [filled(x.reshape(-1, *x.shape[-3:]), 1) for x in rows]
        out = jax.nn.dot_product_attention(*flat, mask=mask, key_value_seq_lengths=seen, implementation=implementation)
        return jnp.swapaxes(out[:, :length].reshape(rows[0].shape), -2, -3)

    return jnp.swapaxes(on_each_device(attend, *(jnp.swapaxes(x, -2, -3) for x in (q, k, v))), -2, -3)


def filled(x: jax.Array, axis: int) -> jax.Array:
    """With a zero at the end of an axis that has an odd number of entries: JAX differentiates the kernel for even."""
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, x.shape[axis] % 2)
    return jnp.pad(x, widths)
