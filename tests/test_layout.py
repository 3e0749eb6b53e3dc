"""What some chips have laid or computed otherwise, seen without any of these chips."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AbstractDevice, AbstractMesh, use_abstract_mesh

from models import make, video
from vivit_jax.models import sums
from vivit_jax.models.gelu import gelu
from vivit_jax.models.linear import rounded
from vivit_jax.models.tokens import Tokens

OTHERS = "TPU v5 lite", "TPU v5", None


def mesh_of(kind: str | None):
    """Of one such chip."""
    device = kind and AbstractDevice(device_kind=kind, num_cores=1, platform="tpu")
    return use_abstract_mesh(AbstractMesh((1,), ("data",), abstract_device=device))


def test_on_v6e_gelu_keeps_its_slope():
    """So that its backward pass is one product."""
    lengths = {}
    for kind in ("TPU v6 lite", *OTHERS):
        with mesh_of(kind):
            _, pull = jax.vjp(lambda x: gelu(x, True), jnp.array([0.3, -0.7]))
            lengths[kind] = len(jax.make_jaxpr(pull)(jnp.ones(2)).eqns)
    assert lengths.pop("TPU v6 lite") == 1 < min(lengths.values())


@pytest.mark.parametrize("kind", ["TPU v6 lite", *OTHERS])
@pytest.mark.parametrize("case, always", [("vivit_ti16x2_fsa", False), ("timesformer_b", True)])
def test_attention_over_time_is_exchanged_where_it_pays(case, always, kind):
    """With 8 positions of 16 time steps as a group: ViViT's on v6e alone."""
    model = make(case, num_layers=1)
    steps = {attention.step.axes: attention for attention in model.encoder.blocks[0].attention}
    attention = steps["time",]
    with mesh_of(kind):
        way = attention._way(Tokens(jnp.zeros((1, 16, 1, 8, 24)), None))
    exchanged = always or kind == "TPU v6 lite"
    assert way == (attention._attend_at_positions if exchanged else attention._attend)


def test_on_v6e_one_of_equal_sums_is_no_step_of_its_own():
    for kind in ("TPU v6 lite", *OTHERS):
        with mesh_of(kind):
            steps = str(jax.make_jaxpr(sums._column_sums_by_matmul)(jnp.ones((3, 24))))
        assert ("reduce_max" in steps) == (kind == "TPU v6 lite")


def test_rounding_in_two_steps_is_rounding():
    """Ties, overflow, subnormal numbers and what is no number, too; of the gradient nothing is rounded."""
    x = jnp.array([1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, -3.4e38, 1e-40, -0.0, jnp.inf, jnp.nan, 0.1])

    def both(x):
        y, pull = jax.vjp(lambda x: rounded(x, jnp.bfloat16), x)
        return y, *pull(y)

    for kind in ("TPU v6 lite", *OTHERS):
        with mesh_of(kind):
            jaxpr = jax.make_jaxpr(both)(x)
            assert rounded(x, jnp.float32) is x
        assert str(jaxpr).count("reduce_precision[") == (kind == "TPU v6 lite")
        y, change = jax.core.eval_jaxpr(jaxpr.jaxpr, jaxpr.consts, x)
        assert (y.dtype, change.dtype) == (jnp.bfloat16, jnp.float32)
        for found in (y, change):
            np.testing.assert_array_equal(found.astype(jnp.float32), x.astype(jnp.bfloat16).astype(jnp.float32))


@pytest.mark.parametrize("case, exact", [("vivit_ti16x2_fe", 0), ("timesformer_b", 3)])
def test_on_v6e_kernels_are_rounded_before_the_layers(case, exact):
    """Where XLA finds that it is the same for all parts of a batch; but for `exact` ones, of attentions with two."""
    graph, params = nnx.split(make(case, dtype="bfloat16"))
    for kind in ("TPU v6 lite", *OTHERS):
        with mesh_of(kind):
            jaxpr = jax.make_jaxpr(lambda params: nnx.merge(graph, params)(video()))(params)
        layers = [eqn.invars for eqn in jaxpr.eqns if eqn.params.get("name") == "run_layer"]
        assert layers
        for given in layers:
            wide = sum(x.aval.dtype == jnp.float32 and x.aval.ndim == 2 for x in given)
            assert wide == exact if kind == "TPU v6 lite" else wide > exact
