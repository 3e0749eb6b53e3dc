"""What runs on a GPU: JAX_PLATFORMS=cuda,cpu pytest tests/test_gpu.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from models import ALL, make, video
from vivit_jax.models import cudnn
from vivit_jax.models.dot_product_attention import Computation, dot_product_attention

pytestmark = pytest.mark.skipif(jax.default_backend() != "gpu", reason="there is no GPU")
ON_GPU = dict(width=128, num_heads=2, image_size=64, patch_size=8)  # 64 patches of a frame, and CLS: of an odd number


def distance(one, other) -> float:
    """Of two arrays, relative to the second."""
    one, other = (np.asarray(x, np.float64) for x in (one, other))
    return np.linalg.norm(one - other) / np.linalg.norm(other)


@pytest.mark.parametrize("length", [64, 197, 1000])
def test_the_kernel_is_attention(length):
    """In value and gradients, in bfloat16, beside whole weights in float32."""
    q, k, v, change = (jax.random.normal(jax.random.key(i), (2, 3, length, 4, 64), jnp.bfloat16) for i in range(4))

    def of(how, dtype):
        @jax.jit
        def attended(*arrays):
            *heads, change = (x.astype(dtype) for x in arrays)
            out, pull = jax.vjp(lambda *heads: dot_product_attention(*heads, how=how)[0], *heads)
            return out, *pull(change)

        return attended

    kernel, exact = of(Computation(), jnp.bfloat16), of(Computation(kernel="xla"), jnp.float32)
    assert "__cudnn$fmha" in kernel.lower(q, k, v, change).compile().as_text()
    for ours, theirs in zip(kernel(q, k, v, change), exact(q, k, v, change), strict=True):
        assert distance(ours, theirs) < 6e-3  # bfloat16 has 8 bits


@pytest.mark.parametrize("case", ALL)
def test_models_are_the_same_on_gpus(case):
    """In gradients, those in float32 beside CPUs', and in bfloat16 with the kernel."""
    clips = video(2, 4, 64, 64)

    def value_and_gradients(device, **more):
        graph, params = nnx.split(make(case, **ON_GPU, **more), nnx.Param)
        run = jax.jit(jax.value_and_grad(lambda params, x: jnp.sin(nnx.merge(graph, params)(x)).sum()))
        with jax.default_device(jax.devices(device)[0]), jax.default_matmul_precision("highest"):
            params, x = jax.device_put((params, clips), jax.devices(device)[0])
            text = run.lower(params, x).compile().as_text()
            return run(params, x), "__cudnn$fmha" in text

    (_, exact), _ = value_and_gradients("cpu")
    (_, ours), _ = value_and_gradients("gpu")
    (_, rounded), kernel = value_and_gradients("gpu", dtype="bfloat16")
    assert kernel == (case != "timesformer_b_time")  # of 5 tokens, CLS among them
    flat = [
        jnp.concatenate([x.ravel() for x in jax.tree.leaves(jax.device_get(tree))]) for tree in (exact, ours, rounded)
    ]
    assert distance(flat[1], flat[0]) < 1e-4
    assert distance(flat[2], flat[0]) < 4e-2


def test_short_sequences_and_float32_do_without():
    assert cudnn.takes(64, 64, jnp.bfloat16)
    assert not cudnn.takes(63, 64, jnp.bfloat16)
    assert not cudnn.takes(64, 64, jnp.float32)
    assert not cudnn.takes(64, 136, jnp.bfloat16)
