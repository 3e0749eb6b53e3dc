"""LayerNorm with a backward pass that keeps no more than its input."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from vivit_jax.architecture import ModelConfig
from vivit_jax.models.initializers import Keys
from vivit_jax.models.sums import column_sums, row_products, row_sums


class LayerNorm(nnx.LayerNorm):
    """That of flax, statistics in float32, with `normalize` instead of its derivative."""

    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        assert self.scale is not None and self.bias is not None
        return normalize(x, self.scale[...], self.bias[...], self.epsilon)


def layer_norm(config: ModelConfig, keys: Keys) -> LayerNorm:
    """LayerNorm as in both releases."""
    options: dict[str, Any] = dict(epsilon=config.layer_norm_eps, dtype=jnp.dtype(config.dtype), rngs=keys)
    return LayerNorm(config.width, **options)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def normalize(x: Float[Array, "*B D"], scale: Float[Array, "D"], bias: Float[Array, "D"], epsilon: float):
    """(x - mean) / std * scale + bias over the last axis, in the dtype of `x`.

    What differentiating it step by step keeps, and reduces, TPUs take 7% of a training step longer for.
    """
    return _forward(x, scale, bias, epsilon)[0]


def _forward(x, scale, bias, epsilon: float):
    x32 = x.astype(jnp.float32)
    mean = x32.mean(-1, keepdims=True)
    variance = jnp.maximum((x32 * x32).mean(-1, keepdims=True) - mean * mean, 0)
    inverse = jax.lax.rsqrt(variance + epsilon)
    return ((x32 - mean) * (inverse * scale) + bias).astype(x.dtype), (x, mean, inverse, scale)


def _backward(epsilon: float, residuals, change):
    x, mean, inverse, scale = residuals
    change32, normed = change.astype(jnp.float32), (x.astype(jnp.float32) - mean) * inverse
    scaled, axes = change32 * scale, tuple(range(x.ndim - 1))
    along = row_products(scaled, normed) / x.shape[-1]
    # inverse * (scaled - its mean - normed * along), as a line in x for each row: fewer steps for each entry.
    slope = -inverse * inverse * along
    shift = inverse * row_sums(change, scale) / x.shape[-1] + slope * mean
    dx = inverse * scaled + (slope * x.astype(jnp.float32) - shift)
    return dx.astype(x.dtype), (change32 * normed).sum(axes), column_sums(change)


normalize.defvjp(_forward, _backward)
