"""Averaging over the views of a video."""

import jax
import jax.numpy as jnp


def average_views(logits: jax.Array, how: str) -> jax.Array:
    """[B, views, K] logits -> [B, K] log-probabilities or logits, the mean over the views."""
    if how == "logits":
        return logits.mean(1)
    return jax.nn.logsumexp(jax.nn.log_softmax(logits), axis=1) - jnp.log(logits.shape[1])
