"""What is exact enough in bfloat16."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from models import ALL, make, video
from vivit_jax.models.gelu import gelu

FEW = 2  # examples, and a CLS token
SUM = re.compile(r"applies stablehlo.add .*?: \(tensor<([\dx]+)xbf16>, tensor<bf16>\) -> tensor<((?:\d+x)*)bf16>")


def numbers(shape: str) -> int:
    return math.prod(int(size) for size in shape.split("x") if size)


@pytest.mark.parametrize("case", ALL)
def test_gpus_sum_up_gradients_in_float32(case):
    """XLA has them sum in bfloat16 what is bfloat16. No more terms than frames are, as for the copies of CLS; those of
    a bias are as many as there are tokens."""
    graph, params = nnx.split(make(case, dtype="bfloat16"), nnx.Param)
    traced = jax.jit(jax.grad(lambda params, x: nnx.merge(graph, params)(x).sum())).trace(params, video(2, 8))
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert " applies stablehlo.add " in text
    assert max((numbers(x) // max(numbers(out), 1) for x, out in SUM.findall(text)), default=0) <= FEW


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("tanh", [True, False])
def test_the_slope_of_gelu(tanh, fast, monkeypatch):
    """Of its formula in float32: rounded twice at most, not after each of its steps."""
    monkeypatch.setattr("vivit_jax.models.gelu.fast_matrix_units", lambda: fast)
    x = jnp.linspace(-9, 9, 20001).astype(jnp.bfloat16)
    (ours,) = jax.vjp(lambda x: gelu(x, tanh), x)[1](jnp.ones_like(x))
    exact = jax.vmap(jax.grad(lambda x: jax.nn.gelu(x, approximate=tanh)))(x.astype(jnp.float32))
    np.testing.assert_allclose(ours.astype(jnp.float32), exact, atol=2**-8)
