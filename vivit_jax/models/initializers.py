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


def inflate(kernel: jax.Array, frames: int, how: str) -> jax.Array:
    """Makes of a kernel for images [h, w, 3, D] one for tubelets [frames, h, w, 3, D] (ViViT 3.4).

    `central_frame` (Eq. 9) sees frame `frames // 2` alone, and `inflation` (Eq. 8) the mean of all: shown a still clip,
    both give what the image's kernel gives.
    """
    if how == "inflation":
        return jnp.repeat(kernel[None] / frames, frames, axis=0)
    return jnp.zeros((frames, *kernel.shape), kernel.dtype).at[frames // 2].set(kernel)


def tubelet_kernel(config: ModelConfig, rngs: nnx.Rngs) -> jax.Array:
    """The embedding's kernel [t, h, w, 3, D] as `config.embedding_initializer` says."""
    init, frames = kernel_initializer(config), config.tubelet_size
    shape = (*config.patch_size, 3, config.width)
    if config.embedding_initializer == "random":
        return init(rngs.params(), (frames, *shape), jnp.float32)
    return inflate(init(rngs.params(), shape, jnp.float32), frames, config.embedding_initializer)


def linear(config: ModelConfig, inputs: int, outputs: int, rngs: nnx.Rngs, **kwargs: Any) -> nnx.Linear:
    """A linear layer with float32 parameters that computes in the model's dtype."""
    options: dict[str, Any] = dict(kernel_init=kernel_initializer(config), dtype=jnp.dtype(config.dtype)) | kwargs
    return nnx.Linear(inputs, outputs, rngs=rngs, **options)


def layer_norm(config: ModelConfig, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """LayerNorm as in both releases, statistics in float32."""
    return nnx.LayerNorm(config.width, epsilon=config.layer_norm_eps, dtype=jnp.dtype(config.dtype), rngs=rngs)


def tiny_normal(key: jax.Array, shape, dtype=jnp.float32) -> jax.Array:
    """The MLP biases of ViT and ViViT."""
    return 1e-6 * jax.random.normal(key, shape, dtype)
