"""Space-time attention of ViViT and TimeSformer: which axes fold into the batch, and which attend."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float

from vivit_jax.models.layout import place, place_groups

# Batch, time, height, width, heads, head width -> batch, groups, the tokens that see each other, heads, head width.
# Axes that may be split over devices are never merged: a merged one could not be told apart again.
AXES = {
    "joint": "b t h w n d -> b (t h w) n d",
    "space": "b t h w n d -> b t (h w) n d",
    "time": "b t h w n d -> b (h w) t n d",
    "height": "b t h w n d -> b t w h n d",
    "width": "b t h w n d -> b t h w n d",
    "local": "b t (i h) (j w) n d -> b i j (t h w) n d",  # windows of T x H/2 x W/2
    "global": "b (t k) (h i) (w j) n d -> b k i j (t h w) n d",  # every second token along each axis
}


class Step(NamedTuple):
    """One attention of a block. With several `axes` its heads are shared out among them in order."""

    axes: tuple[str, ...]
    cls: bool = True  # CLS joins every group, and takes the mean of what it gets; or stays out
    project: bool = False  # a zero-initialized projection of the result: the step starts as the identity


class Scheme(NamedTuple):
    """The attentions of a block, before its MLP."""

    steps: tuple[Step, ...]
    parallel: bool = False  # every step sees the block's input, not its predecessor's output
    per_frame: bool = False  # frames are examples of their own, each with its CLS and its stochastic depth


_SPACE, _TIME = Step(("space",)), Step(("time",))
_ADDED_TIME = Step(("time",), cls=False, project=True)

SCHEMES = {
    # ViViT 3.3: models 1 to 4
    "joint": Scheme((Step(("joint",)),)),
    "factorized_encoder": Scheme((_SPACE,), per_frame=True),
    "factorized_self_attention": Scheme((_SPACE, _TIME)),
    "factorized_self_attention_time_space": Scheme((_TIME, _SPACE)),
    "factorized_dot_product": Scheme((Step(("time", "space")),)),
    # TimeSformer figure 2 and section 4.1
    "space": Scheme((_SPACE,), per_frame=True),
    "time": Scheme((_TIME,)),
    "divided": Scheme((_ADDED_TIME, _SPACE)),
    "divided_space_time": Scheme((_SPACE, _ADDED_TIME)),
    "divided_parallel": Scheme((_ADDED_TIME, _SPACE), parallel=True),
    "local_global": Scheme((Step(("local",), cls=False, project=True), Step(("global",)))),
    "axial": Scheme((_ADDED_TIME, Step(("width",), cls=False, project=True), Step(("height",)))),
}


class Tokens(NamedTuple):
    """The state of a video transformer. Pointwise functions go through `jax.tree.map`."""

    patches: jax.Array  # [B, T, H, W, D]
    cls: jax.Array | None  # [B, 1, D], or [B, T, D] one for each frame; None where there is none


def dropout(x: jax.Array, rate, key: jax.Array | None, shape: tuple[int, ...] | None = None) -> jax.Array:
    """Zeroes entries of `x` at `rate` and scales the others up; the identity without a `key` (evaluation).

    `shape`, broadcast against `x`, says what is dropped as one: `[B, 1, ...]` is stochastic depth.
    """
    if key is None or (isinstance(rate, float) and rate == 0):
        return x
    keep = 1 - jnp.asarray(rate, jnp.float32)
    kept = jax.random.bernoulli(key, keep, shape or x.shape)
    return jnp.where(kept, x / jnp.maximum(keep, 1e-6).astype(x.dtype), 0)


@jax.custom_jvp
def softmax(logits: Float[Array, "*G L M"]) -> Float[Array, "*G L M"]:
    """Over the last axis, in float32."""
    logits32 = logits.astype(jnp.float32)
    powers = jnp.exp(logits32 - logits32.max(-1, keepdims=True)).astype(logits.dtype)
    # Matrix units add up faster than vector units do.
    sums = jax.lax.platform_dependent(powers, tpu=_row_sums_by_matmul, default=_row_sums)
    return (powers / sums).astype(logits.dtype)


@softmax.defjvp
def _(primals, tangents):
    weights, change = softmax(*primals), tangents[0].astype(jnp.float32)
    mean = (weights * change).sum(-1, keepdims=True)
    return weights, (weights * (change - mean)).astype(weights.dtype)


def _row_sums(x: jax.Array) -> jax.Array:
    return x.sum(-1, keepdims=True, dtype=jnp.float32)


def _row_sums_by_matmul(x: jax.Array) -> jax.Array:
    ones = jnp.ones((x.shape[-1], 8), x.dtype)
    return jnp.matmul(x, ones, precision="highest", preferred_element_type=jnp.float32)[..., :1]


def dot_product_attention(
    q: Float[Array, "*G L N d"],
    k: Float[Array, "*G M N d"],
    v: Float[Array, "*G M N d"],
    rate: float = 0.0,
    key: jax.Array | None = None,
    chunk: int = 0,
) -> tuple[Float[Array, "*G L N d"], Float[Array, "*G N L M"]]:
    """softmax(q k' / sqrt(d)) v within each group, softmax in float32; also the weights before dropout.

    With `chunk`, so many queries at a time: no more of the weights is in memory at once, and the backward pass computes
    them again. What is dropped is then drawn query by query.
    """
    if chunk and q.shape[-3] > chunk:
        return _in_chunks(q, k, v, rate, key, chunk)
    logits = jnp.einsum("...lnd,...mnd->...nlm", q * q.shape[-1] ** -0.5, k)
    weights = softmax(logits)
    dropped = dropout(weights, rate, key)
    return jnp.einsum("...nlm,...mnd->...lnd", dropped, v), weights


def _in_chunks(q, k, v, rate: float, key: jax.Array | None, chunk: int) -> tuple[jax.Array, jax.Array]:
    @jax.checkpoint
    def one(query_and_key):
        query, key = query_and_key
        out, weights = dot_product_attention(query[..., None, :, :], k, v, rate, key)
        return out[..., 0, :, :], weights[..., 0, :]

    keys = None if key is None else jax.random.split(key, q.shape[-3])
    out, weights = jax.lax.map(one, (jnp.moveaxis(q, -3, 0), keys), batch_size=chunk)
    return jnp.moveaxis(out, 0, -3), jnp.moveaxis(weights, 0, -2)


def attend(
    axes: str, queries_keys_values: Sequence[Tokens], rate: float, key: jax.Array | None, chunk: int, remat: bool
) -> tuple[Tokens, jax.Array]:
    """Attention along `axes` of AXES.

    Args:
      queries_keys_values: each of patches [B, T, H, W, N, d] and, where CLS takes part, of CLS [B, 1, N, d].
      remat: the backward pass computes everything again from these three.
    Returns:
      tokens as one of the three, or None for CLS; attention weights [B, groups, N, L, L], CLS first.
    """
    pattern, (first, *_) = AXES[axes], queries_keys_values
    sizes = {name: 2 for name in "ijk" if name in pattern}
    left, right = pattern.split(" -> ")
    q, k, v = (
        place_groups(_with_cls(place_groups(rearrange(x.patches, pattern, **sizes), right), x.cls), right)
        for x in queries_keys_values
    )
    attention = jax.checkpoint(dot_product_attention, static_argnums=(3, 5)) if remat else dot_product_attention
    out, weights = attention(q, k, v, rate, key, chunk)
    out, cls = place_groups(out, right), None
    if first.cls is not None:
        cls, out = out[..., 0, :, :], out[..., 1:, :, :]  # [B, *groups, N, d]
        cls = place(cls.mean(tuple(range(1, cls.ndim - 2)))[:, None], "b t ... n d")
    for axis, size, half in zip("thw", first.patches.shape[1:4], "kij", strict=True):
        sizes[axis] = size // sizes.get(half, 1)
    patches = rearrange(place_groups(out, right), f"{right} -> {left}", **sizes)
    return Tokens(place(patches, "b t ... n d"), cls), weights.reshape(weights.shape[0], -1, *weights.shape[-3:])


def _with_cls(groups: jax.Array, cls: jax.Array | None) -> jax.Array:
    """[B, *groups, L, N, d] with CLS [B, 1, N, d] as the first token of each group."""
    if cls is None:
        return groups
    copies = jnp.expand_dims(cls, tuple(range(1, groups.ndim - 3)))
    copies = jnp.broadcast_to(copies, (*groups.shape[:-3], 1, *groups.shape[-2:]))
    return jnp.concatenate([copies, groups], axis=-3)
