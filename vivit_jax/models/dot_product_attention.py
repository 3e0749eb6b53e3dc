"""softmax(q k' / sqrt(d)) v: at once for short sequences, in blocks for long ones."""

import math
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vivit_jax.errors import UserError
from vivit_jax.models.layout import split
from vivit_jax.models.softmax import row_sums, softmax
from vivit_jax.models.splash import splash_attention
from vivit_jax.models.tokens import dropout

LONG = 512  # queries from which heads attend one after the other
LONGEST = 4096  # queries from which TPUs use a kernel
BLOCK = 2**24  # weights of a head that are in memory at a time on a device, where nothing else is asked for


class Computation(NamedTuple):
    """How attention is computed; the numbers are the same."""

    chunk: int = 0  # queries at a time
    kernel: str = "auto"  # or "xla", "pallas": for long sequences on TPUs
    remat: bool = False  # the backward pass computes the weights again


DEFAULT = Computation()


def dot_product_attention(
    q: Float[Array, "*G L N d"],
    k: Float[Array, "*G M N d"],
    v: Float[Array, "*G M N d"],
    rate: float = 0.0,
    key: jax.Array | None = None,
    how: Computation = DEFAULT,
) -> tuple[Float[Array, "*G L N d"], Float[Array, "*G N L M"]]:
    """softmax(q k' / sqrt(d)) v within each group, softmax in float32; also the weights before dropout.

    With fewer than `LONG` queries, all at once. Else, or with a smaller chunk, in blocks: so many queries, for one head
    after the other. No more of the weights is in memory at a time, and the backward pass computes them again. On TPUs
    the longest sequences without dropout go through a kernel.
    """
    length = q.shape[-3]
    q = q * q.shape[-1] ** -0.5
    weights = softmax(jnp.einsum("...lnd,...mnd->...nlm", q, k))
    if (how.chunk or LONG - 1) >= length:
        return jnp.einsum("...nlm,...mnd->...lnd", dropout(weights, rate, key), v), weights

    def blockwise(q, k, v):
        return _with_heads(blockwise_attention(*map(_by_head, (q, k, v)), key, rate, how.chunk or _chunk(q, k)))

    if how.kernel == "pallas" or (how.kernel == "auto" and not how.chunk and length >= LONGEST):
        why_not = _unfit(q, key is not None and rate > 0)
        if not why_not:
            return jax.lax.platform_dependent(q, k, v, tpu=splash_attention, default=blockwise), weights
        if how.kernel == "pallas":
            raise UserError(f"model.attention_kernel: pallas {why_not}; 'auto' goes without it there")
    return blockwise(q, k, v), weights


def _unfit(q: jax.Array, drops: bool) -> str:
    """Why the kernel cannot take it."""
    parts, precision = split("n") * split("t"), cast(Any, jax.config).jax_default_matmul_precision
    if drops:
        return "has no dropout; set model.attention_dropout=0"
    if q.shape[-2] % parts:
        return f"needs heads that divide over the mesh, and has {q.shape[-2]} for {parts} devices"
    return "" if precision in (None, "default") else f"needs the default precision of products, not {precision}"


def _chunk(q: jax.Array, k: jax.Array) -> int:
    """As many queries as make a block of weights, in blocks of one size."""
    sequences = math.prod(q.shape[:-3]) // math.gcd(q.shape[0], split("b"))
    blocks = -(-sequences * q.shape[-3] * k.shape[-3] // BLOCK)
    return -(-q.shape[-3] // blocks)


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def blockwise_attention(q, k, v, key: jax.Array | None, rate: float, chunk: int) -> Float[Array, "H *G L n d"]:
    """softmax(q k') v for one of H after the other and `chunk` queries at a time (FlashAttention, arXiv 2205.14135).

    Blocks of all keys need no running maximum. The backward pass has their weights from the logarithm of their sums.
    """
    return _forward(q, k, v, key, rate, chunk)[0]


def _forward(q, k, v, key, rate: float, chunk: int):
    def head(qkv_and_key):
        q, k, v, key = qkv_and_key
        return jax.lax.map(
            lambda xs: _attend(xs[0], xs[1], k, v, rate), (*_blocks(q, chunk=chunk), _split(key, q, chunk))
        )

    out, log_sums = jax.lax.map(head, (q, k, v, _split(key, q)))
    out = jax.vmap(partial(_joined, length=q.shape[-3]))(out)
    return out, (q, k, v, key, out, log_sums)


def _attend(q, key, k, v, rate: float):
    """One block: [*G, l, n, d] and the logarithm of the sums [*G, n, l, 1]."""
    logits = jnp.einsum("...lnd,...mnd->...nlm", q, k, preferred_element_type=jnp.float32)
    most = logits.max(-1, keepdims=True)
    powers = jnp.exp(logits - most).astype(q.dtype)
    sums = row_sums(powers)
    out = jnp.einsum("...nlm,...mnd->...lnd", dropout(powers, rate, key), v, preferred_element_type=jnp.float32)
    return (out / jnp.swapaxes(sums, -2, -3)).astype(q.dtype), most + jnp.log(sums)


def _backward(rate: float, chunk: int, residuals, change):
    q, k, v, key, out, log_sums = residuals

    def head(xs):
        q, k, v, key, out, log_sums, change = xs
        step = partial(_differentiate, k=k, v=v, rate=rate)
        blocks = (*_blocks(q, out, change, chunk=chunk), log_sums, _split(key, q, chunk))
        zero = jnp.zeros(k.shape, jnp.float32)
        (dk, dv), dq = jax.lax.scan(step, (zero, zero), blocks)
        return _joined(dq, q.shape[-3]), dk.astype(k.dtype), dv.astype(v.dtype)

    return *jax.lax.map(head, (q, k, v, _split(key, q), out, log_sums, change)), None


def _differentiate(sums, block, k, v, rate: float):
    """Adds what one block's queries change in keys and values; returns what changes in the queries."""
    (dk, dv), (q, out, change, log_sums, key) = sums, block
    logits = jnp.einsum("...lnd,...mnd->...nlm", q, k, preferred_element_type=jnp.float32)
    # Apart, or TPUs would round what is on its way to the next product.
    weights = jnp.exp(jax.lax.optimization_barrier(logits) - log_sums).astype(q.dtype)
    dv += jnp.einsum("...nlm,...lnd->...mnd", dropout(weights, rate, key), change)
    dweights = jnp.einsum("...lnd,...mnd->...nlm", change, v, preferred_element_type=jnp.float32)
    dweights = dropout(dweights, rate, key)
    mean = jnp.einsum("...lnd,...lnd->...nl", out, change, preferred_element_type=jnp.float32)[..., None]
    dlogits = (weights * (dweights - mean)).astype(q.dtype)
    dk += jnp.einsum("...nlm,...lnd->...mnd", dlogits, q)
    return (dk, dv), jnp.einsum("...nlm,...mnd->...lnd", dlogits, k)


blockwise_attention.defvjp(_forward, _backward)


def _by_head(x: jax.Array) -> jax.Array:
    """[*G, L, N, d] -> [N / n, *G, L, n, d]; n of them at a time, one on each device where heads are split."""
    n = math.gcd(x.shape[-2], split("n") * split("t"))
    return jnp.moveaxis(x.reshape(*x.shape[:-2], n, -1, x.shape[-1]), -2, 0)


def _with_heads(x: jax.Array) -> jax.Array:
    x = jnp.moveaxis(x, 0, -2)
    return x.reshape(*x.shape[:-3], -1, x.shape[-1])


def _blocks(*arrays: jax.Array, chunk: int) -> list[jax.Array]:
    """[*G, L, n, d] -> [L / chunk, *G, chunk, n, d], filled up with zeros, which change nothing."""
    blocks = []
    for x in arrays:
        count = -(-x.shape[-3] // chunk)
        x = jnp.pad(x, [(0, 0)] * (x.ndim - 3) + [(0, count * chunk - x.shape[-3]), (0, 0), (0, 0)])
        blocks.append(jnp.moveaxis(x.reshape(*x.shape[:-3], count, chunk, *x.shape[-2:]), -4, 0))
    return blocks


def _joined(blocks: jax.Array, length: int) -> jax.Array:
    x = jnp.moveaxis(blocks, 0, -4)
    return x.reshape(*x.shape[:-4], -1, *x.shape[-2:])[..., :length, :, :]


def _split(key: jax.Array | None, x: jax.Array, chunk: int = 0) -> jax.Array | None:
    """A key for each head of `x`, or for each of its blocks."""
    if key is None:
        return None
    return jax.random.split(key, -(-x.shape[-3] // chunk) if chunk else x.shape[0])
