"""What is compiled for TPUs that are not there; needs libtpu."""

import importlib.util
import json

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import runs
from vivit_jax.models.dot_product_attention import Computation, dot_product_attention
from vivit_jax.planning import hlo
from vivit_jax.planning.slices import slice_devices
from vivit_jax.sections import Mesh
from vivit_jax.training.sharding import make_mesh
from vivit_jax.variants import model_config

pytestmark = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")
BENCHMARKS = runs.REPOSITORY / "benchmarks"
MODELS = ("vivit_b16x2", "vivit_b16x2_fe", "vivit_b16x2_fsa", "vivit_b16x2_fdpa", "timesformer_b", "vivit_l16x2_fe")


@pytest.mark.parametrize("name, chip", [*((name, "v5e") for name in MODELS), ("vivit_b16x2_fsa", "v6e")])
def test_a_step_has_not_become_dearer(name, chip, monkeypatch):
    """Two layers, beside what is published, by the compiler's estimate and in multiply-adds."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    cycles = importlib.import_module("cycles")
    kept = json.loads(cycles.RESULTS.read_text())["steps"][f"{name}, two layers, on {chip}"]
    with jax.default_matmul_precision("default"):  # as published, and not as other tests want it
        now = cycles.step(name, chip, 1, **cycles.SMALL)
    for key in ("estimated_cycles_per_clip", "multiply_adds_per_clip"):
        assert now[key] <= 1.03 * kept[key], key


@pytest.mark.parametrize("chip", ["v5e", "v6e"])
@pytest.mark.parametrize("length, kernel", [(4100, True), (3137, False)])
def test_the_longest_sequences_go_through_a_kernel_on_each_chip(chip, length, kernel):
    """Differentiated too, with examples and heads split over chips; nowhere is there an array of all weights."""
    model = model_config("vivit_b16x2", 10)
    mesh = make_mesh(Mesh(data=2, tensor=2), 2, model, slice_devices(f"{chip}:2x2"))
    heads = jax.ShapeDtypeStruct(
        (2, length, 4, 64), jnp.bfloat16, sharding=NamedSharding(mesh, P("data", None, "tensor"))
    )

    def loss(q, k, v):
        return jnp.sin(dot_product_attention(q, k, v, how=Computation())[0]).sum().astype("float32")

    with jax.set_mesh(mesh), jax.default_matmul_precision("default"):
        compiled = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(heads, heads, heads).compile()
    module = hlo.read(compiled.as_text())
    assert bool(module.kernels) == kernel and not module.collectives
    assert compiled.memory_analysis().temp_size_in_bytes < 2 * 2 * length * length


def test_every_shape_of_mesh_finds_a_place():
    """Also where the axes cut across those of the slice."""
    for topology, axes in (
        ("v6e:4x4", dict(data=2, fsdp=8)),
        ("v5p:2x2x4", dict(data=8, fsdp=2)),
        ("v5e:4x4", dict(data=16)),
    ):
        mesh = make_mesh(Mesh(**axes), 64, model_config("vivit_b16x2", 10), slice_devices(topology))
        assert mesh.shape["data"] == axes["data"] and mesh.size == 16


def test_options_that_are_published_still_pay(monkeypatch):
    """Factorized self-attention, two layers: the compiler knows them, and the estimate is lower with them."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    cycles = importlib.import_module("cycles")
    name = "vivit_b16x2_fsa"
    without = json.loads(cycles.RESULTS.read_text())["steps"][f"{name}, two layers, on v5e"]
    with jax.default_matmul_precision("default"):
        now = cycles.step(name, "v5e", 1, options=cycles.OPTIONS, **cycles.SMALL)
    assert now["estimated_cycles_per_clip"] < 0.97 * without["estimated_cycles_per_clip"]
