"""The nonlinearity of MLPs."""

import math
from functools import partial

import jax
import jax.numpy as jnp

from vivit_jax.models.layout import again


@partial(jax.custom_vjp, nondiff_argnums=(1,))  # else a scan keeps what it is computed from three times
def gelu(x: jax.Array, tanh: bool) -> jax.Array:
    """x times the normal distribution's integral up to it (arXiv 1606.08415), or `tanh` for that, as ViViT has it."""
    return _gelu(x, tanh)


def _gelu(x: jax.Array, tanh: bool) -> jax.Array:
    if tanh:
        return jax.nn.gelu(x, approximate=True)
    # JAX has it by erfc, with which a training step has 8% more cycles by the estimate of TPUs' compiler.
    x32 = x.astype(jnp.float32)
    return (x32 * (0.5 + 0.5 * jax.lax.erf(x32 * math.sqrt(0.5)))).astype(x.dtype)


def _differentiate_gelu(tanh: bool, x: jax.Array, change: jax.Array) -> tuple[jax.Array]:
    x = again(x)
    if tanh:
        return (change * _tanh_slope(x).astype(x.dtype),)
    return jax.vjp(partial(_gelu, tanh=tanh), x)[1](change)


def _tanh_slope(x: jax.Array) -> jax.Array:
    """In float32, of x times the logistic function of twice what `tanh` is of: the same in fewer steps, which GPUs take
    longer for than to read `x`."""
    x = x.astype(jnp.float32)
    a, b = 2 * math.sqrt(2 / math.pi), 2 * math.sqrt(2 / math.pi) * 0.044715
    s = jax.lax.logistic(x * (a + b * x * x))
    return s * (1 + x * (1 - s) * (a + 3 * b * x * x))


gelu.defvjp(lambda x, tanh: (_gelu(x, tanh), x), _differentiate_gelu)
