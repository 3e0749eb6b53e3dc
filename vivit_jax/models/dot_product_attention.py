"""softmax(q k' / sqrt(d)) v: at once for short sequences, in blocks for long ones."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vivit_jax.errors import UserError
from vivit_jax.models import cudnn
from vivit_jax.models.blockwise_attention import attend_in_blocks, products, transposed
from vivit_jax.models.layout import split
from vivit_jax.models.softmax import softmax, softmax_change
from vivit_jax.models.splash import splash_attention
from vivit_jax.models.tokens import dropout

LONG = 512  # queries from which heads attend one after the other
LONGEST = 4096  # queries from which TPUs use a kernel
TILE = 128  # rows and columns of TPUs' matrix units


class Computation(NamedTuple):
    """How attention is computed; the numbers are the same."""

    chunk: int = 0  # queries at a time
    kernel: str = "auto"  # or "xla", "pallas": for long sequences on TPUs
    remat: bool = False  # the backward pass computes the weights again
    count: int = 0  # of tokens, where the last is none and there to make their number even
    beside: int = 1  # groups that TPUs, and GPUs' kernel, take as one, where these are short


DEFAULT = Computation()


def dot_product_attention(
    q: Float[Array, "*G L N d"],
    k: Float[Array, "*G M N d"],
    v: Float[Array, "*G M N d"],
    rate: float = 0.0,
    key: jax.Array | None = None,
    how: Computation = DEFAULT,
) -> tuple[Float[Array, "*G L N d"], Float[Array, "*G N l m"]]:
    """softmax(q k' / sqrt(d)) v within each group, softmax in float32; also the weights before dropout.

    With fewer than `LONG` queries, all at once. Else, or with a smaller chunk, in blocks: so many queries, for one head
    after the other. No more of the weights is in memory at a time, and the backward pass computes them again. On TPUs
    the longest sequences without dropout go through a kernel, on GPUs all but the shortest in two bytes.
    """
    key, scale = key if rate > 0 else None, q.shape[-1] ** -0.5
    tokens = [x[..., : how.count or None, :, :] for x in (q, k)]

    def otherwise(q, k, v):
        return _by_length(scale * q, k, v, rate, key, how)

    if fused(q.shape[0], q.shape[-3], q.shape[-1], q.dtype, key is not None, how):
        out = _by_cudnn(q, k, v, how, otherwise)
    else:
        out = otherwise(q, k, v)
    return out, _weights(scale * tokens[0], tokens[1])


def fused(examples: Any, length: int, head_width: int, dtype: Any, drops: bool, how: Computation) -> bool:
    """Whether GPUs, if there are any, attend by a kernel. An exported program, of any number of examples, has none."""
    wanted = isinstance(examples, int) and not drops and not how.chunk and how.kernel == "auto"
    return wanted and (cudnn.MASKS or how.beside == 1) and cudnn.takes(length * how.beside, head_width, dtype)


def _by_cudnn(q, k, v, how: Computation, otherwise: Callable[..., jax.Array]) -> jax.Array:
    """On GPUs; `otherwise` where JAX computes on another device than those."""

    def kernel(q, k, v):
        if how.beside == 1:
            return cudnn.cudnn_attention(q, k, v, how.count)
        return _as_one(partial(cudnn.cudnn_attention, own=q.shape[-3]), how.beside, q, k, v)

    @jax.checkpoint  # a loop keeps for its backward pass what either way needs
    def default(q, k, v):
        if not how.count:
            return otherwise(q, k, v)
        return cudnn.filled(otherwise(*(x[..., : how.count, :, :] for x in (q, k, v))), -3)

    return jax.lax.platform_dependent(q, k, v, cuda=kernel, default=default)


def _by_length(q, k, v, rate: float, key: jax.Array | None, how: Computation) -> jax.Array:
    if (how.chunk or LONG - 1) < q.shape[-3]:
        return _by_heads(partial(_long, rate=rate, key=key, how=how), q, k, v)
    if how.beside > 1 and key is None:
        alone, beside = partial(_at_once, key=None, rate=0.0, own=0), partial(side_by_side, groups=how.beside)
        return jax.lax.platform_dependent(q, k, v, tpu=beside, default=alone)
    return cast(jax.Array, _at_once(q, k, v, key, rate, 0))


def groups_beside(count: int, length: int) -> int:
    """How many of `count` groups of `length` tokens TPUs take as one: as many as fill a tile, or most of it."""
    fitting = range(TILE // (2 * length) + 1, TILE // length + 1)
    return max((groups for groups in fitting if count % groups == 0), default=1)


def _weights(q: jax.Array, k: jax.Array, own: int = 0) -> jax.Array:
    """Each token's for all, or for the `own` tokens in a row that its group has."""
    logits = jnp.einsum("...lnd,...mnd->...nlm", q, k)
    if own:
        group = np.arange(q.shape[-3]) // own
        logits = jnp.where(group[:, None] == group, logits, -jnp.inf)
    return softmax(logits)


def side_by_side(q: jax.Array, k: jax.Array, v: jax.Array, groups: int) -> jax.Array:
    """So many groups in a row as one, which sees its own part alone: matrix units multiply as often for
    8 tokens as for 14 times 8, and vector units take rows of 128 weights for rows of 8."""
    return _as_one(lambda *heads: cast(jax.Array, _at_once(*heads, None, 0.0, q.shape[-3])), groups, q, k, v)


def _as_one(attend: Callable[..., jax.Array], groups: int, *heads: jax.Array) -> jax.Array:
    *leading, count, length, heads_of, width = heads[0].shape
    shape = *leading, count // groups, groups * length, heads_of, width
    return attend(*(x.reshape(shape) for x in heads)).reshape(heads[0].shape)


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _at_once(q, k, v, key: jax.Array | None, rate: float, own: int) -> jax.Array:
    """As it is best where no derivative is asked for."""

    def whole(q, k, v):
        return _weighted(dropout(_weights(q, k, own), rate, key), v)

    if own or key is not None:
        return whole(q, k, v)
    return jax.lax.platform_dependent(q, k, v, cpu=partial(_by_heads, _in_one_loop), default=whole)


def _at_once_forward(q, k, v, key: jax.Array | None, rate: float, own: int):
    weights = _weights(q, k, own)
    return _weighted(dropout(weights, rate, key), v), (q, k, v, key, weights)


def _at_once_backward(rate: float, own: int, residuals, change):
    q, k, v, key, weights = residuals
    dweights = dropout(jnp.einsum("...lnd,...mnd->...nlm", change, v), rate, key)
    dlogits = softmax_change(weights, dweights)
    dv = _weighted(transposed(dropout(weights, rate, key)), change)
    return _weighted(dlogits, k), _weighted(transposed(dlogits), q), dv, None


_at_once.defvjp(_at_once_forward, _at_once_backward)


def _weighted(weights: jax.Array, x: jax.Array) -> jax.Array:
    """Sums of x [*G, M, N, d] by weights [*G, N, L, M]: [*G, L, N, d]. CPUs would transpose weights for the second."""

    def by_heads(weights, x):
        return _by_heads(partial(jnp.matmul, weights), x)

    def einsum(weights, x):
        return jnp.einsum("...nlm,...mnd->...lnd", weights, x)

    return jax.lax.platform_dependent(weights, x, cpu=by_heads, default=einsum)


def _by_heads(attend: Callable[..., jax.Array], *heads: jax.Array) -> jax.Array:
    """`attend` for arrays [*G, N, L, d]."""
    return jnp.swapaxes(attend(*(jnp.swapaxes(x, -2, -3) for x in heads)), -2, -3)


def _in_one_loop(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Of steps that XLA makes one loop of on CPUs: no weights are written to memory."""
    logits = products(q, k, preferred_element_type=jnp.float32)
    powers = jnp.exp(logits - logits.max(-1, keepdims=True)).astype(v.dtype)
    return (powers @ v / powers.sum(-1, keepdims=True, dtype=jnp.float32)).astype(v.dtype)


def _long(q, k, v, rate: float, key: jax.Array | None, how: Computation) -> jax.Array:
    blockwise = partial(attend_in_blocks, key=key, rate=rate, chunk=how.chunk)
    if how.kernel == "pallas" or (how.kernel == "auto" and not how.chunk and q.shape[-2] >= LONGEST):
        why_not = _unfit(q, key is not None)
        if not why_not:
            return jax.lax.platform_dependent(q, k, v, tpu=splash_attention, default=blockwise)
        if how.kernel == "pallas":
            raise UserError(f"model.attention_kernel: pallas {why_not}; 'auto' goes without it there")
    return blockwise(q, k, v)


def _unfit(q: jax.Array, drops: bool) -> str:
    """Why the kernel cannot take it."""
    parts, precision = split("n") * split("t"), cast(Any, jax.config).jax_default_matmul_precision
    if drops:
        return "has no dropout; set model.attention_dropout=0"
    if q.shape[-3] % parts:
        return f"needs heads that divide over the mesh, and has {q.shape[-3]} for {parts} devices"
    return "" if precision in (None, "default") else f"needs the default precision of products, not {precision}"
