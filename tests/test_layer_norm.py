"""LayerNorm's own backward pass, and the sums that only TPUs take."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vivit_jax.models import layer_norm, sums


def differentiated(x, scale, bias):
    x = x.astype("float32")
    centered = x - x.mean(-1, keepdims=True)
    return centered / jnp.sqrt((centered**2).mean(-1, keepdims=True) + 1e-6) * scale + bias


@pytest.mark.parametrize("tpu", [None, "v5e", "v6e"])
@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-5), ("bfloat16", 1e-2)])
def test_value_and_gradients(dtype, tolerance, tpu, monkeypatch):
    """Beside what is differentiated step by step in float32, relative to the largest entry."""
    x, change = (jax.random.normal(jax.random.key(i), (2, 3, 5, 24)).astype(dtype) for i in range(2))
    scale, bias = (1 + jax.random.normal(jax.random.key(i), (24,)) for i in range(2, 4))
    if tpu:
        monkeypatch.setattr(sums, "_row_sums", sums._row_sums_by_matmul)
        monkeypatch.setattr(sums, "_column_sums", sums._column_sums_by_matmul)
        monkeypatch.setattr(sums, "fast_matrix_units", lambda: tpu == "v6e")
    ours, pull = jax.vjp(lambda *args: layer_norm.normalize(*args, 1e-6), x, scale, bias)
    theirs, wanted = jax.vjp(differentiated, x, scale, bias)
    for one, other in zip([ours, *pull(change)], [theirs, *wanted(change.astype("float32"))], strict=True):
        other = np.asarray(other, "float32")
        np.testing.assert_allclose(np.asarray(one, "float32"), other, atol=tolerance * abs(other).max())


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-5), ("bfloat16", 1e-2)])
def test_sums_are_the_same_on_tpus(dtype, tolerance, fast, monkeypatch):
    """But for weights, which take the dtype of what they weigh."""
    monkeypatch.setattr(sums, "fast_matrix_units", lambda: fast)
    x = jnp.exp(jax.random.normal(jax.random.key(0), (2, 3, 7, 19))).astype(dtype)
    weights, ones = jnp.exp(jax.random.normal(jax.random.key(1), (19,))), jnp.ones(19)
    for ours, on_tpus, wanted, within in (
        (sums._row_sums(x, ones), sums._row_sums_by_matmul(x, ones), x, 1e-5),
        (sums._row_sums(x, weights), sums._row_sums_by_matmul(x, weights), x.astype("float32") * weights, tolerance),
    ):
        assert ours.dtype == on_tpus.dtype == "float32"
        np.testing.assert_allclose(ours, wanted.astype("float32").sum(-1, keepdims=True), rtol=1e-5)
        np.testing.assert_allclose(on_tpus, ours, rtol=within)
    ours, on_tpus = sums._column_sums(x), sums._column_sums_by_matmul(x)
    assert ours.dtype == on_tpus.dtype == "float32"
    np.testing.assert_allclose(ours, x.astype("float32").sum((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(on_tpus, ours, rtol=1e-5)
