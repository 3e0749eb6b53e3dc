"""Losses."""

import jax
import jax.numpy as jnp
import optax


def cross_entropy(logits: jax.Array, labels: jax.Array, smoothing: float = 0.0) -> jax.Array:
    """Softmax cross-entropy per example.

    Args:
      logits: float [B, K].
      labels: int [B], or float [B, K] that sum to 1.
      smoothing: part of the label that is spread over all K classes.
    Returns:
      float32 [B].
    """
    targets = labels if labels.ndim == 2 else jax.nn.one_hot(labels, logits.shape[-1])
    targets = optax.smooth_labels(targets, smoothing) if smoothing else targets
    return optax.softmax_cross_entropy(logits.astype(jnp.float32), targets)
