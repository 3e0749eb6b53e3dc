"""Attention over long sequences in blocks of queries, of which no more is in memory at a time."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vivit_jax.models.layout import split
from vivit_jax.models.sums import row_products, row_sums
from vivit_jax.models.tokens import dropout

BLOCK = 2**24  # weights of a head that are in memory at a time on a device, where nothing else is asked for
CPU_BLOCK = 2**22  # of which the caches of CPUs hold most, where memory does not


def attend_in_blocks(
    q: Float[Array, "*G N L d"],
    k: Float[Array, "*G N M d"],
    v: Float[Array, "*G N M d"],
    key: jax.Array | None,
    rate: float,
    chunk: int,
) -> Float[Array, "*G N L d"]:
    """softmax(q k') v, head by head and `chunk` queries at a time; 0 is chosen by their number."""
    heads = [_by_head(x) for x in (q, k, v)]
    shape = heads[0].shape
    if math.prod(shape[1:-2]) == 1:  # of one clip; axes of size 1 cost CPUs time
        heads = [x.reshape(x.shape[0], *x.shape[-2:]) for x in heads]
    return _with_heads(cast(jax.Array, blockwise_attention(*heads, key, rate, chunk)).reshape(shape))


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def blockwise_attention(q, k, v, key: jax.Array | None, rate: float, chunk: int) -> Float[Array, "H *G L d"]:
    """softmax(q k') v for one of H after the other and `chunk` queries at a time (FlashAttention, arXiv 2205.14135).

    Blocks of all keys need no running maximum. The backward pass has their weights from the logarithm of their sums.
    """
    return _forward(q, k, v, key, rate, chunk)[0]


def _forward(q, k, v, key, rate: float, chunk: int):
    out, log_sums = _with_chunk(partial(_attend_all, rate=rate), chunk, q, k, v, key)
    return out, (q, k, v, key, out, log_sums)


def _backward(rate: float, chunk: int, residuals, change):
    q, k, v, key, out, log_sums = residuals
    means = row_products(*(x.astype(jnp.float32) for x in (out, change)))  # of the changes of weights, by the weights
    differentiate = partial(_differentiate_all, rate=rate)
    return *_with_chunk(differentiate, chunk, q, k, v, key, means, log_sums, change), None


def _with_chunk(run: Callable[..., Any], chunk: int, q, k, *arrays) -> Any:
    """Runs it with so many queries at a time; for 0, as many as make a block of weights, in blocks of one size."""
    if chunk:
        return run(q, k, *arrays, chunk=chunk)
    examples, *groups = q.shape[1:-3] or (1,)
    each = examples // math.gcd(examples, split("b")) if isinstance(examples, int) else 1  # of any number, in exports
    sequences = each * math.prod(groups)
    weights = sequences * q.shape[-2] * k.shape[-2]  # of the heads at a time, one on each device
    on_cpu, elsewhere = (partial(run, chunk=-(-q.shape[-2] // -(-weights // size))) for size in (CPU_BLOCK, BLOCK))
    return jax.lax.platform_dependent(q, k, *arrays, cpu=on_cpu, default=elsewhere)


def _attend_all(q, k, v, key, rate: float, chunk: int):
    """[H, *G, L, d] and the logarithms of the sums [H, *G, L, 1]."""

    def head(qkv_and_key):
        q, k, v, key = qkv_and_key
        blocks = jax.lax.map(
            lambda xs: _attend(xs[0], xs[1], k, v, rate), (*_blocks(q, chunk=chunk), _split(key, q, chunk))
        )
        return [_joined(x, q.shape[-2]) for x in blocks]

    return jax.lax.map(head, (q, k, v, _split(key, q)))


def _attend(q, key, k, v, rate: float):
    """One block: [*G, n, l, d] and the logarithm of the sums [*G, n, l, 1]."""
    logits = products(q, k, preferred_element_type=jnp.float32)
    most = logits.max(-1, keepdims=True)
    powers = jnp.exp(logits - most).astype(q.dtype)
    sums = row_sums(powers)
    out = jnp.matmul(dropout(powers, rate, key), v, preferred_element_type=jnp.float32)
    return (out / sums).astype(q.dtype), most + jnp.log(sums)


def _differentiate_all(q, k, v, key, means, log_sums, change, rate: float, chunk: int):
    """What changes in q, k and v."""

    def head(xs):
        q, k, v, key, means, log_sums, change = xs
        step = partial(_differentiate, k=k, v=v, rate=rate)
        blocks = (*_blocks(q, means, change, log_sums, chunk=chunk), _split(key, q, chunk))
        zero = jnp.zeros((*k.shape[:-2], k.shape[-1], k.shape[-2]), jnp.float32)
        (dk, dv), dq = jax.lax.scan(step, (zero, zero), blocks)
        return _joined(dq, q.shape[-2]), transposed(dk).astype(k.dtype), transposed(dv).astype(v.dtype)

    return jax.lax.map(head, (q, k, v, _split(key, q), means, log_sums, change))


def _differentiate(sums, block, k, v, rate: float):
    """Adds what one block's queries change in keys and values [..., d, M]; returns what changes in the queries.

    Products are such that no block of weights has to be transposed.
    """
    (dk, dv), (q, mean, change, log_sums, key) = sums, block
    logits = products(q, k, preferred_element_type=jnp.float32)
    # Apart, or TPUs would round what is on its way to the next product.
    weights = jnp.exp(jax.lax.optimization_barrier(logits) - log_sums).astype(q.dtype)
    dv += transposed(change) @ dropout(weights, rate, key)
    dweights = dropout(products(change, v, preferred_element_type=jnp.float32), rate, key)
    dlogits = (weights * (dweights - mean)).astype(q.dtype)
    dk += transposed(q) @ dlogits
    return (dk, dv), dlogits @ k


blockwise_attention.defvjp(_forward, _backward)


def _blocks(*arrays: jax.Array, chunk: int) -> list[jax.Array]:
    """[*G, n, L, d] -> [L / chunk, *G, n, chunk, d], filled up with zeros, which change nothing."""
    blocks = []
    for x in arrays:
        count = -(-x.shape[-2] // chunk)
        x = jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(0, count * chunk - x.shape[-2]), (0, 0)])
        blocks.append(jnp.moveaxis(x.reshape(*x.shape[:-2], count, chunk, x.shape[-1]), -3, 0))
    return blocks


def _joined(blocks: jax.Array, length: int) -> jax.Array:
    x = jnp.moveaxis(blocks, 0, -3)
    return x.reshape(*x.shape[:-3], -1, x.shape[-1])[..., :length, :]


def _split(key: jax.Array | None, x: jax.Array, chunk: int = 0) -> jax.Array | None:
    """A key for each head of `x`, or for each of its blocks."""
    if key is None:
        return None
    return jax.random.split(key, -(-x.shape[-2] // chunk) if chunk else x.shape[0])


def _by_head(x: jax.Array) -> jax.Array:
    """[*G, N, L, d] -> [N / n, *G, n, L, d]; n of them at a time, one on each device where heads are split."""
    n = math.gcd(x.shape[-3], split("n") * split("t"))
    return jnp.moveaxis(x.reshape(*x.shape[:-3], n, -1, *x.shape[-2:]), -3, 0)


def _with_heads(x: jax.Array) -> jax.Array:
    x = jnp.moveaxis(x, 0, -3)
    return x.reshape(*x.shape[:-4], -1, *x.shape[-2:])


def products(x: jax.Array, y: jax.Array, **options: Any) -> jax.Array:
    """x y' for the rows of two arrays [..., rows, d]."""
    return jnp.matmul(x, transposed(y), **options)


def transposed(x: jax.Array) -> jax.Array:
    return jnp.swapaxes(x, -1, -2)
