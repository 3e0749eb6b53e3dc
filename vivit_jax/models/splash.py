"""Attention over the longest sequences by a kernel for TPUs: Splash attention, one of those that JAX keeps."""

from typing import cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vivit_jax.models.layout import on_each_device

BLOCK = 512  # queries, and keys, at a time


def splash_attention(
    q: Float[Array, "*G N L d"], k: Float[Array, "*G N L d"], v: Float[Array, "*G N L d"], interpret: bool = False
) -> Float[Array, "*G N L d"]:
    """softmax(q k') v. Sequences are filled up to whole blocks with tokens that see each other alone.

    Args:
      interpret: runs the kernel's steps by XLA, on any platform, to test it.
    """
    # Imported only now: it takes longer than all of our models, and few programs attend by it.
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    length = q.shape[-2]
    padded = -(-length // BLOCK) * BLOCK
    filled = jnp.asarray(jnp.arange(padded) >= length, jnp.int32)

    def attend(*heads: jax.Array) -> jax.Array:
        kernel = splash.make_splash_mha(
            splash.MultiHeadMask([splash.FullMask((padded, padded))] * heads[0].shape[-3]),
            block_sizes=splash.BlockSizes(**dict.fromkeys(_SIZES, BLOCK)),
            head_shards=1,
            q_seq_shards=1,
            interpret=interpret,
        )
        rows = [_fill(x, padded).reshape(-1, x.shape[-3], padded, x.shape[-1]) for x in heads]
        out = cast(jax.Array, jax.vmap(kernel, (0, 0, 0, None))(*rows, splash.SegmentIds(filled, filled)))
        return out[:, :, :length].reshape(heads[0].shape)

    return on_each_device(attend, q, k, v)


_SIZES = ("block_q", "block_kv", "block_kv_compute", "block_q_dkv", "block_kv_dkv", "block_kv_dkv_compute")
_SIZES += ("block_q_dq", "block_kv_dq")


def _fill(x: jax.Array, length: int) -> jax.Array:
    return jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(0, length - x.shape[-2]), (0, 0)])
