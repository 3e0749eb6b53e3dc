"""Attention within groups: at once, in blocks, by a kernel, beside its definition."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from models import make, video
from vivit_jax.models import blockwise_attention as blockwise
from vivit_jax.models import softmax
from vivit_jax.models.dot_product_attention import Computation, dot_product_attention, groups_beside, side_by_side
from vivit_jax.models.tokens import dropout


def defined(q, k, v, rate=0.0, key=None):
    weights = jax.nn.softmax(jnp.einsum("...lnd,...mnd->...nlm", q / q.shape[-1] ** 0.5, k))
    return jnp.einsum("...nlm,...mnd->...lnd", dropout(weights, rate, key), v)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_short_attention_is_its_definition(batch, rate):
    """Without and with a derivative, which are computed in different ways, and with what was dropped; of fewer keys."""
    q, k, v = (jax.random.normal(jax.random.key(i), (batch, 3, length, 2, 8)) for i, length in enumerate((19, 11, 11)))
    key = jax.random.key(7)

    def attended(attend):
        def loss(q, k, v):
            return jnp.sin(attend(q, k, v, rate, key)).sum()

        value = jax.jit(lambda q, k, v: attend(q, k, v, rate, key))(q, k, v)
        return value, jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))(q, k, v)

    ours = attended(lambda *args: dot_product_attention(*args)[0])
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(attended(defined)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("groups", [2, 6])
def test_groups_side_by_side_do_not_see_each_other(groups):
    """As TPUs compute short ones, in value and gradient."""
    *heads, change = (jax.random.normal(jax.random.key(i), (2, 6, 5, 2, 8)) for i in range(4))

    def value_and_gradient(attend):
        out, pull = jax.vjp(attend, *heads)
        return out, *pull(change)

    ours = value_and_gradient(lambda q, k, v: side_by_side(q * q.shape[-1] ** -0.5, k, v, groups))
    for one, other in zip(ours, value_and_gradient(defined), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_as_many_groups_lie_side_by_side_as_fill_a_tile():
    """Of TimeSformer-B, HR and L, of few positions, and of a number of them without a fitting divisor."""
    cases = {(196, 8): 14, (784, 16): 8, (196, 96): 1, (4, 8): 1, (16, 8): 16, (169, 8): 13, (121, 16): 1}
    assert {case: groups_beside(*case) for case in cases} == cases


def test_only_tpus_attend_over_time_side_by_side():
    """16 positions of 8 time steps: of 128 tokens, other devices compute and keep nothing; scanned, TPUs neither."""
    sizes = r"\D128[x,]128[x\]]"

    def traced(scan):
        graph, params = nnx.split(make("timesformer_b", num_frames=8, scan=scan), nnx.Param)
        return jax.jit(jax.grad(lambda params, x: nnx.merge(graph, params)(x).sum())).trace(params, video(1, 8))

    assert re.search(sizes, traced(False).lower(lowering_platforms=("tpu",)).as_text())
    assert not re.search(sizes, traced(True).lower(lowering_platforms=("tpu",)).as_text())
    assert not re.search(sizes, traced(False).lower().compile().as_text())


@pytest.mark.parametrize("name, count", [("vivit_ti16x2_fdpa", 2), ("vivit_ti16x2_fsa", 0)])
def test_tpus_write_the_norm_once_for_six_products(name, count):
    """Forward, and its gradient backward, in the one layer that is compiled for all."""
    graph, params = nnx.split(make(name), nnx.Param)
    traced = jax.jit(jax.grad(lambda params, x: nnx.merge(graph, params)(x).sum())).trace(params, video(1, 4))
    lowered = traced.lower(lowering_platforms=("tpu",)).as_text()
    assert lowered.count("optimization_barrier") == count
    assert "optimization_barrier" not in traced.lower().as_text()


def test_short_attention_in_bfloat16_has_a_softmax_in_float32():
    """Large logits, whose rounding would show."""
    q, k, v = (scale * jax.random.normal(jax.random.key(i), (1, 2, 64, 2, 8)) for i, scale in enumerate((8, 8, 1)))
    q, k, v = (x.astype(jnp.bfloat16) for x in (q, k, v))
    ours = jax.jit(lambda *qkv: dot_product_attention(*qkv)[0])(q, k, v)
    assert ours.dtype == jnp.bfloat16
    exact = defined(*(x.astype(jnp.float32) for x in (q, k, v)))
    assert np.abs(ours.astype(jnp.float32) - exact).mean() < 2e-2 * np.abs(exact).mean()


def temporaries(function, length, chunk=0, heads=2, width=8):
    """Bytes beside inputs and results, for one clip."""
    q, k, v = (jax.ShapeDtypeStruct((1, length, heads, width), jnp.float32) for _ in range(3))

    def attend(q, k, v):
        return dot_product_attention(q, k, v, how=Computation(chunk))[0]

    return jax.jit(function(attend)).lower(q, k, v).compile().memory_analysis().temp_size_in_bytes


def gradients(attend):
    return jax.grad(lambda q, k, v: jnp.sin(attend(q, k, v)).sum(), argnums=(0, 1, 2))


def test_no_weights_are_written_where_no_derivative_is_asked_for():
    """On CPUs, for heads as they are in the papers: XLA makes one loop of all steps."""
    size, weights = dict(length=500, heads=12, width=64), 4 * 12 * 500 * 500
    assert temporaries(lambda attend: attend, **size) < weights / 2 < weights < temporaries(gradients, **size)


def test_the_longest_sequences_find_their_chunk():
    """Of a head's weights, and of two arrays like them, there are no more than CPU_BLOCK entries, backwards too."""
    length = 9000
    assert temporaries(gradients, length) < 4 * 4 * blockwise.CPU_BLOCK < 4 * length * length / 4


@pytest.mark.parametrize("chunk", [5, 16])
def test_chunks_of_queries_change_nothing(chunk):
    """In values, weights and gradients, whether they divide the sequence or not; and in what a model says."""
    q, k, v = jax.random.normal(jax.random.key(0), (3, 2, 3, 33, 2, 8))

    def attended(chunk):
        def loss(q, k, v):
            out, weights = dot_product_attention(q, k, v, how=Computation(chunk))
            return jnp.sin(out).sum() + jnp.cos(3 * weights).sum(), (out, weights)

        return jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))(q, k, v)

    for ours, whole in zip(jax.tree.leaves(attended(chunk)), jax.tree.leaves(attended(0)), strict=True):
        np.testing.assert_allclose(ours, whole, atol=1e-5)
    call = nnx.jit(lambda model: model(video()))
    model = make("vivit_ti16x2")
    np.testing.assert_allclose(call(make("vivit_ti16x2", attention_chunk=chunk)), call(model), atol=1e-5)


@pytest.mark.parametrize("chunk", [0, 5, 33])
def test_chunks_are_differentiated_with_what_they_dropped(chunk, monkeypatch):
    """Beside JAX's derivative of the same forward pass, for three heads of each of two groups, two at a time."""
    monkeypatch.setattr(blockwise, "CPU_BLOCK", 500)  # of 2 x 33 x 33 weights: five blocks, of 7 queries
    q, k, v = jax.random.normal(jax.random.key(0), (3, 3, 2, 2, 33, 8))

    def gradients(attend):
        def loss(q, k, v):
            return jnp.sin(attend(q, k, v, jax.random.key(1), 0.3, chunk)).sum()

        return jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(q, k, v)

    def forward(*args):
        return blockwise._forward(*args)[0]

    for ours, theirs in zip(gradients(blockwise.blockwise_attention), gradients(forward), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    if not chunk:
        chosen, same = (forward(q, k, v, jax.random.key(1), 0.3, chunk) for chunk in (0, 7))
        np.testing.assert_allclose(chosen, same, atol=1e-5)


def test_chunks_take_less_memory():
    """Of the weights no more than a chunk's are there at a time, backwards too."""
    assert temporaries(gradients, 1000, chunk=64) < temporaries(gradients, 1000) / 4


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-5), ("bfloat16", 3e-2)])
def test_softmax_in_value_and_gradient(dtype, tolerance):
    """Beside JAX's in float32."""
    logits, weight = (3 * jax.random.normal(jax.random.key(i), (2, 3, 7, 19)) for i in range(2))

    def loss(function, dtype, x):
        return (weight * function(x.astype(dtype)).astype("float32")).sum()

    ours, theirs = (
        jax.value_and_grad(loss, argnums=2)(f, of, logits)
        for f, of in ((softmax.softmax, dtype), (jax.nn.softmax, "float32"))
    )
    for one, other in zip(ours, theirs):
        np.testing.assert_allclose(one, other, atol=10 * tolerance)
