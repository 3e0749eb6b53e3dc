"""Linear layers with float32 parameters that compute in the model's dtype."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from vivit_jax.architecture import ModelConfig
from vivit_jax.models.initializers import Keys, kernel_initializer
from vivit_jax.models.layout import fast_matrix_units


class Linear(nnx.Linear):
    """That of flax, with `affine` for what it computes."""

    def __call__(self, x: Float[Array, "*B K"]) -> Float[Array, "*B D"]:
        return affine(x.astype(self.dtype), self.kernel[...], bias_of(self))


def linear(config: ModelConfig, inputs: int, outputs: int, keys: Keys, **kwargs: Any) -> Linear:
    """A linear layer, initialized as the paper's release has it."""
    options: dict[str, Any] = dict(kernel_init=kernel_initializer(config), dtype=jnp.dtype(config.dtype), rngs=keys)
    return Linear(inputs, outputs, **options | kwargs)


def affine(x: Float[Array, "*B K"], kernel: Float[Array, "K D"], bias: Float[Array, "D"]) -> Float[Array, "*B D"]:
    """x kernel + bias, in the dtype of `x`."""
    return added(x @ kernel.astype(x.dtype), bias)


def added(x: jax.Array, part: jax.Array) -> jax.Array:
    """x + part, in the dtype of `x`."""
    return x + copies(part, x.shape, x.dtype)


def copies(part: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """`part` of this dtype, broadcast to this shape. GPUs round after they broadcast, so that its gradient is a sum in
    float32: they would add up in bfloat16, of a bias as many terms as there are tokens. TPUs add up in float32 either
    way, and have more cycles so."""

    def rounded_first(part):
        return jnp.broadcast_to(rounded(part, dtype), shape)

    def rounded_last(part):
        return jnp.broadcast_to(part.astype(jnp.float32), shape).astype(dtype)

    if jnp.dtype(dtype).itemsize > 2:
        return rounded_first(part)
    return jax.lax.platform_dependent(part, cuda=rounded_last, default=rounded_first)


def rounded(x: jax.Array, dtype: Any) -> jax.Array:
    """`x` in this dtype. On v6e in two steps, which XLA makes one program of, for several arrays: what is rounded by
    itself, as kernels are before the parts of a batch, then has fewer cycles by the compiler's estimate."""
    narrower = jnp.dtype(dtype) == jnp.bfloat16 and x.dtype == jnp.float32
    return _rounded_in_two_steps(x) if narrower and fast_matrix_units() else x.astype(dtype)


@jax.custom_vjp  # else gradients would take the first step, too
def _rounded_in_two_steps(x: jax.Array) -> jax.Array:
    return jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=7).astype(jnp.bfloat16)


_rounded_in_two_steps.defvjp(
    lambda x: (_rounded_in_two_steps(x), None), lambda _, change: (change.astype(jnp.float32),)
)


def bias_of(layer: nnx.Linear) -> jax.Array:
    assert layer.bias is not None
    return layer.bias[...]
