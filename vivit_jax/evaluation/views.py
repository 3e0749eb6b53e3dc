"""The views of a video, and averaging over them."""

import jax
import jax.numpy as jnp

from vivit_jax.architecture import Preprocessing
from vivit_jax.errors import UserError


def check_clips(feeding: Preprocessing, clips: int) -> None:
    """Raises UserError for clips beside the only one that a model has of a video."""
    if feeding.sampling == "whole" and clips > 1:
        raise UserError(f"clips: {clips} of a model whose sampling is 'whole', which one clip has seen; take 1")


def average_views(logits: jax.Array, how: str) -> jax.Array:
    """[B, views, K] logits -> [B, K] log-probabilities or logits, the mean over the views."""
    if how == "logits":
        return logits.mean(1)
    return jax.nn.logsumexp(jax.nn.log_softmax(logits), axis=1) - jnp.log(logits.shape[1])
