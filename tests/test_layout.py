"""What some chips have laid or computed otherwise, seen without any of these chips."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractDevice, AbstractMesh, use_abstract_mesh

from models import make
from vivit_jax.models import sums
from vivit_jax.models.gelu import gelu
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
