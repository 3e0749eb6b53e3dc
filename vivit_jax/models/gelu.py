"""The nonlinearity of MLPs."""

import math
from functools import partial

import jax
import jax.numpy as jnp

from vivit_jax.models.layout import again, fast_matrix_units, materialized


@partial(jax.custom_vjp, nondiff_argnums=(1,))  # else a scan keeps what it is computed from three times
def gelu(x: jax.Array, tanh: bool) -> jax.Array:
    """x times the normal distribution's integral up to it (arXiv 1606.08415), or `tanh` for that, as ViViT has it."""
    return _gelu(x, tanh)


def _gelu(x: jax.Array, tanh: bool) -> jax.Array:
    # JAX has the first by erfc, with which a training step has 8% more cycles by the estimate of TPUs' compiler.
    return jax.nn.gelu(x, approximate=True) if tanh else _with_slope(x, tanh)[0].astype(x.dtype)


def _with_slope(x: jax.Array, tanh: bool) -> tuple[jax.Array, jax.Array]:
    """And its slope, in float32."""
    x = x.astype(jnp.float32)
    if tanh:
        a, b, square = math.sqrt(2 / math.pi), math.sqrt(2 / math.pi) * 0.044715, x * x
        z = x * (a + b * square)
        # (1 + tanh z) / 2 in fewer steps, which GPUs take longer for than to read `x`; on TPUs `tanh` is one, which
        # matters where products wait for it.
        s = 0.5 + 0.5 * jnp.tanh(z) if fast_matrix_units() else jax.lax.logistic(2 * z)
        y = x * s
        return y, s + y * (1 - s) * (2 * a + 6 * b * square)
    s = 0.5 + 0.5 * jax.lax.erf(x * math.sqrt(0.5))
    return x * s, s + x * jnp.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)


def _forward(x: jax.Array, tanh: bool):
    """Keeps `x`, or the slope where products would wait for it to be computed. There XLA has to write both down, or it
    computes each again for every product that takes it. erf it would make a part of a product too large to be
    compiled in one go."""
    if not fast_matrix_units():
        y = _gelu(x, tanh)
        return y if tanh else materialized(y), (x, None)
    y, slope = jax.lax.optimization_barrier(jax.tree.map(lambda y: y.astype(x.dtype), _with_slope(x, tanh)))
    return y, (None, slope)


def _backward(tanh: bool, kept, change: jax.Array) -> tuple[jax.Array]:
    x, slope = kept
    if slope is not None:
        return (change * slope,)
    x = again(x)
    if tanh:
        return (change * _with_slope(x, tanh)[1].astype(x.dtype),)
    return jax.vjp(partial(_gelu, tanh=tanh), x)[1](change)


gelu.defvjp(_forward, _backward)
