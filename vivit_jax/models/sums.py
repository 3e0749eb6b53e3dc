"""Sums over rows and columns, in float32. By the estimate of TPUs' compiler matrix units add up for less than vector
units do: there, what can be is a product with the weights, or ones, eight times over."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vivit_jax.models.layout import fast_matrix_units


def row_products(x: Float[Array, "*B D"], y: Float[Array, "*B D"]) -> Float[Array, "*B 1"]:
    """Sums of x * y over the last axis. As `(x * y).sum` one clip takes CPUs 40 times longer."""
    return jnp.einsum("...d,...d->...", x, y, precision="highest")[..., None]


def row_sums(x: Float[Array, "*B D"], weights: Float[Array, "D"] | None = None) -> Float[Array, "*B 1"]:
    """Sums over the last axis, of x or of x * weights; on TPUs the weights are rounded to the dtype of `x`."""
    weights = jnp.ones(x.shape[-1]) if weights is None else weights
    return jax.lax.platform_dependent(x, weights, tpu=_row_sums_by_matmul, default=_row_sums)


def column_sums(x: Float[Array, "*B D"]) -> Float[Array, "D"]:
    """Sums over all axes but the last."""
    return jax.lax.platform_dependent(x, tpu=_column_sums_by_matmul, default=_column_sums)


def _row_sums(x: jax.Array, weights: jax.Array) -> jax.Array:
    return (x.astype(jnp.float32) * weights).sum(-1, keepdims=True)


def _row_sums_by_matmul(x: jax.Array, weights: jax.Array) -> jax.Array:
    columns = jnp.broadcast_to(weights[:, None], (x.shape[-1], 8)).astype(x.dtype)
    return _one_of_eight(jnp.matmul(x, columns, precision="highest", preferred_element_type=jnp.float32), -1)


def _column_sums(x: jax.Array) -> jax.Array:
    return x.sum(tuple(range(x.ndim - 1)), dtype=jnp.float32)


def _column_sums_by_matmul(x: jax.Array) -> jax.Array:
    ones = jnp.ones((8, *x.shape[:-1]), x.dtype)
    sums = jnp.tensordot(ones, x, x.ndim - 1, precision="highest", preferred_element_type=jnp.float32)
    return _one_of_eight(sums, 0)[0]


def _one_of_eight(sums: jax.Array, axis: int) -> jax.Array:
    """Of sums that are the same: the greatest, which XLA makes a part of their product, where a slice would be a step
    of its own; on chips whose products take longer, a slice costs less."""
    return sums.max(axis, keepdims=True) if fast_matrix_units() else jax.lax.slice_in_dim(sums, 0, 1, axis=axis)
