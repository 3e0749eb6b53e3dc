"""What GPUs compute otherwise, on CPUs: the kernel's part by XLA. tests/test_gpu.py has the kernel itself."""

import os
import subprocess
import sys
from contextlib import nullcontext
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import export

import runs
from models import make, video
from vivit_jax.compiled import COMPILER_OPTIONS, choose_compiler_options
from vivit_jax.models import cudnn, gelu
from vivit_jax.models.dot_product_attention import Computation, fused
from vivit_jax.sections import Mesh
from vivit_jax.training.sharding import make_mesh
from vivit_jax.variants import model_config

by_xla = partial(cudnn.cudnn_attention, implementation="xla")


def defined(q, k, v, count, own):
    logits = jnp.einsum("...lnd,...mnd->...nlm", q / q.shape[-1] ** 0.5, k)
    if count:
        logits = logits.at[..., count:].set(-jnp.inf)
    if own:
        part = jnp.arange(q.shape[-3]) // own
        logits = jnp.where(part[:, None] == part, logits, -jnp.inf)
    return jnp.einsum("...nlm,...mnd->...lnd", jax.nn.softmax(logits), v)


@pytest.mark.parametrize("length, count, own", [(12, 0, 0), (13, 0, 0), (14, 13, 0), (12, 0, 4)])
@pytest.mark.parametrize("split", [False, True])
def test_attention_of_all_or_of_some(length, count, own, split):
    """In value and gradients, of an odd number too, and with examples on two devices."""
    *heads, change = jax.random.normal(jax.random.key(0), (4, 2, 3, length, 2, 8))

    def value_and_gradients(attend):
        out, pull = jax.vjp(attend, *heads)
        return out, *pull(change)

    mesh = make_mesh(Mesh(data=2), 2, model_config("vivit_b16x2", 10), jax.devices()[:2])
    with jax.set_mesh(mesh) if split else nullcontext():
        ours = jax.jit(lambda: value_and_gradients(partial(by_xla, count=count, own=own)))()
    theirs = value_and_gradients(partial(defined, count=count, own=own))
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize(
    "name, size, call, on_gpu",
    [
        ("vivit_ti16x2", 32, (33, 0), True),  # 2 x 16 tubelets, and CLS
        ("vivit_ti16x2_fe", 32, (17, 0), True),
        ("vivit_ti16x2_fe", 32, (17, 0), False),
        ("vivit_ti16x2_fdpa", 32, (0, 0), True),
        ("timesformer_b", 64, (0, 4), True),  # 32 positions of 4 time steps beside each other
    ],
)
def test_models_are_the_same(name, size, call, on_gpu, monkeypatch):
    """Logits and gradients as GPUs compute them, and as CPUs do beside GPUs."""

    def value_and_gradients(kernel):
        # A width that no other test has: layers are traced once for all that are alike.
        fields = dict(image_size=size, mlp_dim=40 + 8 * on_gpu, attention_kernel=kernel)
        graph, params = nnx.split(make(name, **fields), nnx.Param)
        run = jax.jit(jax.value_and_grad(lambda params, x: jnp.sin(nnx.merge(graph, params)(x)).sum()))
        return run(params, video(2, 4, size, size))

    def choose(*args, default, cuda=None, **others):
        return (cuda if cuda and on_gpu else others.get("cpu", default))(*args)

    def attention(q, k, v, count=0, own=0):
        taken.append((count, own))
        return by_xla(q, k, v, count, own)

    plain, taken = value_and_gradients("xla"), []
    monkeypatch.setattr(jax.lax, "platform_dependent", choose)
    monkeypatch.setattr(cudnn, "cudnn_attention", attention)
    monkeypatch.setattr(cudnn, "takes", lambda length, head_width, dtype: True)
    monkeypatch.setattr(cudnn, "MASKS", True)
    ours = value_and_gradients("auto")
    assert (call in taken) == on_gpu
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5 * max(1, np.abs(other).max()))


def test_where_the_kernel_is_not_taken(monkeypatch):
    """There is none here; else by examples, length, width, dtype, dropout, and what a config asks for."""
    half, how = jnp.bfloat16, Computation()
    assert not fused(2, 64, 64, half, False, how)
    monkeypatch.setattr(cudnn, "_is_there", lambda: True)
    monkeypatch.setattr(cudnn, "MASKS", False)
    assert fused(2, 64, 64, half, False, how)
    (any_number,) = export.symbolic_shape("B")
    assert not fused(any_number, 64, 64, half, False, how)
    assert not fused(2, 63, 64, half, False, how)
    assert not fused(2, 64, 136, half, False, how)
    assert not fused(2, 64, 64, jnp.float32, False, how)
    assert not fused(2, 64, 64, half, True, how)
    assert not fused(2, 64, 64, half, False, how._replace(kernel="xla"))
    assert not fused(2, 64, 64, half, False, how._replace(chunk=32))
    assert not fused(2, 8, 64, half, False, how._replace(beside=14))
    monkeypatch.setattr(cudnn, "MASKS", True)
    assert fused(2, 8, 64, half, False, how._replace(beside=14))


def test_only_gpus_compute_again_and_lay_out():
    """The nonlinearity has a barrier for them, and a model its layout."""

    def lowered(platform):
        graph, params = nnx.split(make("timesformer_b_joint"), nnx.Param)
        traced = jax.jit(jax.grad(lambda params, x: nnx.merge(graph, params)(x).sum())).trace(params, video())
        return traced.lower(lowering_platforms=(platform,)).as_text()

    on = {platform: lowered(platform) for platform in ("cpu", "tpu", "cuda")}
    # TPUs have it too, after erf, which they would make a part of products that are too large then.
    assert [name for name, text in on.items() if "optimization_barrier" in text] == ["tpu", "cuda"]
    assert [name for name, text in on.items() if "LayoutConstraint" in text] == ["cuda"]
    assert [name for name, text in on.items() if "convolution" in text] == ["cpu", "tpu"]
    x = jnp.linspace(-3, 3, 50)
    for tanh in (True, False):
        theirs = jax.vmap(jax.grad(lambda x, tanh=tanh: jax.nn.gelu(x, approximate=tanh)))(x)
        np.testing.assert_allclose(jax.vmap(jax.grad(lambda x, tanh=tanh: gelu.gelu(x, tanh)))(x), theirs, atol=1e-6)


@pytest.mark.parametrize("variable, option", COMPILER_OPTIONS.items())
def test_compilers_get_their_options_unless_told_otherwise(variable, option, monkeypatch):
    name = option.partition("=")[0]
    for known, others in {"--xla_dump_to=there": f" {option}", f"--xla_a=1 {name}=as_told": ""}.items():
        for each in COMPILER_OPTIONS:  # so that all are as before after it
            monkeypatch.setenv(each, known)
        choose_compiler_options()
        assert os.environ[variable] == known + others


@pytest.mark.parametrize("mode", ["train", "predict", "look"])
def test_commands_choose_options_of_compilers(mode, tmp_path):
    """Before they compute anything: here they end when they ask for it."""
    (tmp_path / "clip.mp4").touch()
    trains = ["--config=configs/demo.py", f"--workdir={tmp_path / 'run'}"]
    uses = [f"--input={tmp_path / 'clip.mp4'}", f"--checkpoint={tmp_path}", f"--output={tmp_path / 'out'}"]
    program = f"""
import os, sys
from vivit_jax import compiled, errors
compiled.choose_compiler_options = lambda: os._exit(7)
from vivit_jax import main
sys.argv[1:] = {["--mode=" + mode, *(trains if mode == "train" else uses)]}
errors.run(main.main)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=runs.REPOSITORY, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 7, done.stderr
