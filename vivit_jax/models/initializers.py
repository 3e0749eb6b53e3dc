"""How the papers' releases initialize their parameters."""

import jax
import jax.numpy as jnp
from flax import nnx

from vivit_jax.architecture import ModelConfig


class Keys:
    """A new key at each call: those of `nnx.Rngs(seed)`, whose counter costs 10 ms a key to trace."""

    def __init__(self, seed: int):
        self._key, self._count = jax.random.key(seed), 0

    def __call__(self) -> jax.Array:
        self._count += 1
        return jax.random.fold_in(self._key, self._count - 1)

    params = __call__  # what the layers of nnx call


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


def tubelet_kernel(config: ModelConfig, keys: Keys) -> jax.Array:
    """The embedding's kernel [t, h, w, 3, D] as `config.embedding_initializer` says."""
    init, frames = kernel_initializer(config), config.tubelet_size
    shape = (*config.patch_size, 3, config.width)
    if config.embedding_initializer == "random":
        return init(keys(), (frames, *shape), jnp.float32)
    return inflate(init(keys(), shape, jnp.float32), frames, config.embedding_initializer)


def tiny_normal(key: jax.Array, shape, dtype=jnp.float32) -> jax.Array:
    """The MLP biases of ViT and ViViT."""
    return 1e-6 * jax.random.normal(key, shape, dtype)
