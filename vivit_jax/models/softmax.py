"""The softmax of attention."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from vivit_jax.models.sums import row_products, row_sums


def softmax(logits: Float[Array, "*G L M"]) -> Float[Array, "*G L M"]:
    """Over the last axis, in float32."""
    logits32 = logits.astype(jnp.float32)
    powers = jnp.exp(logits32 - logits32.max(-1, keepdims=True)).astype(logits.dtype)
    return (powers / row_sums(powers)).astype(logits.dtype)


def softmax_change(weights: Float[Array, "*G L M"], change: Float[Array, "*G L M"]) -> Float[Array, "*G L M"]:
    """The gradient of logits from that of their softmax."""
    change32 = change.astype(jnp.float32)
    mean = row_products(weights.astype(jnp.float32), change32)
    return (weights * (change32 - mean)).astype(weights.dtype)
