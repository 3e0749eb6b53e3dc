"""Sums over rows and columns, in float32. By the estimate of TPUs' compiler matrix units add up for less than vector
units do: there, what can be is a product with the weights, or ones, eight times over."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


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
    columns = jnp.broadcast_to(weights.astype(x.dtype)[:, None], (x.shape[-1], 8))
    return jnp.matmul(x, columns, precision="highest", preferred_element_type=jnp.float32)[..., :1]


def _column_sums(x: jax.Array) -> jax.Array:
    return x.sum(tuple(range(x.ndim - 1)), dtype=jnp.float32)


def _column_sums_by_matmul(x: jax.Array) -> jax.Array:
    ones = jnp.ones((8, *x.shape[:-1]), x.dtype)
    return jnp.tensordot(ones, x, x.ndim - 1, precision="highest", preferred_element_type=jnp.float32)[0]
