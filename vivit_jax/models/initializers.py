"""How the papers' releases initialize their parameters."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from vivit_jax.architecture import ModelConfig


def kernel_initializer(config: ModelConfig):
    """Xavier-uniform (ViViT) or truncated normal 0.02 (TimeSformer) for `[..., fan in, fan out]`."""
    if config.initializer == "xavier":
        return nnx.initializers.xavier_uniform()
    return nnx.initializers.truncated_normal(0.02)


def linear(config: ModelConfig, inputs: int, outputs: int, rngs: nnx.Rngs, **kwargs: Any) -> nnx.Linear:
    """A linear layer with float32 parameters that computes in the model's dtype."""
    options: dict[str, Any] = dict(kernel_init=kernel_initializer(config), dtype=jnp.dtype(config.dtype)) | kwargs
    return nnx.Linear(inputs, outputs, rngs=rngs, **options)


def layer_norm(config: ModelConfig, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """LayerNorm as in both releases: eps 1e-6, statistics in float32."""
    return nnx.LayerNorm(config.width, epsilon=1e-6, dtype=jnp.dtype(config.dtype), rngs=rngs)


def tiny_normal(key: jax.Array, shape, dtype=jnp.float32) -> jax.Array:
    """The MLP biases of ViT and ViViT."""
    return 1e-6 * jax.random.normal(key, shape, dtype)
