"""The kernel that TPUs have for long sequences, its steps run by XLA."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vivit_jax.errors import UserError
from vivit_jax.models.dot_product_attention import Computation, dot_product_attention
from vivit_jax.models.splash import splash_attention


@pytest.mark.parametrize("length", [512, 700])
def test_values_and_gradients(length):
    """Beside the whole softmax, padded or not."""
    q, k, v = jax.random.normal(jax.random.key(0), (3, 2, 1, 2, length, 64))

    def attended(attend):
        def loss(q, k, v):
            return jnp.sin(attend(q * 0.125, k, v)).sum()

        return attend(q * 0.125, k, v), *jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(q, k, v)

    def whole(q, k, v):
        return jax.nn.softmax(q @ jnp.swapaxes(k, -1, -2)) @ v

    for ours, theirs in zip(attended(partial(splash_attention, interpret=True)), attended(whole), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize(
    "rate, precision, why", [(0.1, "default", "has no dropout"), (0.0, "highest", "needs the default precision")]
)
def test_it_says_what_it_cannot_take(rate, precision, why):
    """Asked for by name; `auto` does without it there."""
    q, k, v = jax.random.normal(jax.random.key(0), (3, 1, 520, 2, 8))
    with jax.default_matmul_precision(precision):
        with pytest.raises(UserError, match=f"model.attention_kernel: pallas {why}"):
            dot_product_attention(q, k, v, rate, jax.random.key(1), Computation(kernel="pallas"))
        dot_product_attention(q, k, v, rate, jax.random.key(1))
