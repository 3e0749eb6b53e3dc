"""Space-time attention of ViViT and TimeSformer: which axes fold into the batch, and which attend."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange, reduce, repeat
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

# Batch, time, height, width, heads, head width -> groups, the tokens that see each other, heads, head width.
AXES = {
    "joint": "b t h w n d -> b (t h w) n d",
    "space": "b t h w n d -> (b t) (h w) n d",
    "time": "b t h w n d -> (b h w) t n d",
    "height": "b t h w n d -> (b t w) h n d",
    "width": "b t h w n d -> (b t h) w n d",
    "local": "b t (i h) (j w) n d -> (b i j) (t h w) n d",  # windows of T x H/2 x W/2
    "global": "b (t k) (h i) (w j) n d -> (b k i j) (t h w) n d",  # every second token along each axis
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
    per_frame: bool = False  # frames are examples of their own, each with its CLS


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
    cls: jax.Array | None  # [B, 1, D]; None where there is none


def dropout(x: jax.Array, rate, key: jax.Array | None, shape: tuple[int, ...] | None = None) -> jax.Array:
    """Zeroes entries of `x` at `rate` and scales the others up; the identity without a `key` (evaluation).

    `shape`, broadcast against `x`, says what is dropped as one: `[B, 1, ...]` is stochastic depth.
    """
    if key is None or (isinstance(rate, float) and rate == 0):
        return x
    keep = 1 - jnp.asarray(rate, jnp.float32)
    kept = jax.random.bernoulli(key, keep, shape or x.shape)
    return jnp.where(kept, x / jnp.maximum(keep, 1e-6).astype(x.dtype), 0)


def dot_product_attention(
    q: Float[Array, "G L N d"],
    k: Float[Array, "G L N d"],
    v: Float[Array, "G L N d"],
    rate: float = 0.0,
    key: jax.Array | None = None,
) -> tuple[Float[Array, "G L N d"], Float[Array, "G N L L"]]:
    """softmax(q k' / sqrt(d)) v within each group, softmax in float32; also the weights before dropout."""
    logits = jnp.einsum("glnd,gmnd->gnlm", q * q.shape[-1] ** -0.5, k)
    logits = checkpoint_name(logits.astype(jnp.float32), "attention")
    weights = checkpoint_name(jax.nn.softmax(logits).astype(v.dtype), "attention")
    dropped = dropout(weights, rate, key)
    return jnp.einsum("gnlm,gmnd->glnd", dropped, v), weights


def attend(axes: str, qkv: Tokens, rate: float, key: jax.Array | None) -> tuple[Tokens, jax.Array]:
    """Attention along `axes` of AXES.

    Args:
      qkv: of patches [3, B, T, H, W, N, d] and, where CLS takes part, of CLS [3, B, 1, N, d].
    Returns:
      tokens [B, T, H, W, N, d] and [B, 1, N, d] or None; attention weights [B * groups, N, L, L], CLS first.
    """
    groups, (batch, *grid) = AXES[axes], qkv.patches.shape[1:5]
    sizes = dict(b=batch) | {name: 2 for name in "ijk" if name in groups}
    q, k, v = (rearrange(x, groups, **sizes) for x in qkv.patches)
    if qkv.cls is not None:
        copies = q.shape[0] // batch
        q, k, v = (
            jnp.concatenate([repeat(c, "b 1 n d -> (b g) 1 n d", g=copies), x], axis=1)
            for c, x in zip(qkv.cls, (q, k, v), strict=True)
        )
    out, weights = dot_product_attention(q, k, v, rate, key)
    cls = None
    if qkv.cls is not None:
        cls, out = reduce(out[:, :1], "(b g) 1 n d -> b 1 n d", "mean", b=batch), out[:, 1:]
    for axis, size, half in zip("thw", grid, "kij", strict=True):
        sizes[axis] = size // sizes.get(half, 1)
    left, right = groups.split(" -> ")
    return Tokens(rearrange(out, f"{right} -> {left}", **sizes), cls), weights
