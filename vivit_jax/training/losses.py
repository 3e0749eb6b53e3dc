"""Losses, for one head or several: labels and logits are arrays, or dicts of them by head."""

from typing import Any

import jax
import jax.numpy as jnp
import optax


def cross_entropy(logits: Any, labels: Any, smoothing: float = 0.0) -> jax.Array:
    """Softmax cross-entropy per example; of several heads the mean (ViViT's Epic-Kitchens recipe).

    Args:
      logits: float [B, K].
      labels: int [B], or float [B, K] that sum to 1.
      smoothing: part of the label that is spread over all K classes.
    Returns:
      float32 [B].
    """

    def one(logits: jax.Array, labels: jax.Array) -> jax.Array:
        targets = labels if labels.ndim == 2 else jax.nn.one_hot(labels, logits.shape[-1])
        targets = optax.smooth_labels(targets, smoothing) if smoothing else targets
        return optax.softmax_cross_entropy(logits.astype(jnp.float32), targets)

    losses = jax.tree.leaves(jax.tree.map(one, logits, labels))
    return jnp.stack(losses).mean(0)


def all_right(logits: Any, labels: Any) -> jax.Array:
    """Whether the highest logit of every head is the label's: bool [B]."""
    right = jax.tree.map(lambda logits, labels: logits.argmax(-1) == labels, logits, labels)
    return jnp.stack(jax.tree.leaves(right)).all(0)
