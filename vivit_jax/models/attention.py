"""Space-time attention of ViViT and TimeSformer: which axes fold into the batch, and which attend."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange

from vivit_jax.models.dot_product_attention import Computation, dot_product_attention
from vivit_jax.models.layout import place, place_groups
from vivit_jax.models.linear import copies
from vivit_jax.models.tokens import Tokens

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

    @property
    def line(self) -> str:
        """Which of the LINES of tokens it does not tell apart."""
        axes = {axes for step in self.steps for axes in step.axes}
        if axes == {"joint"}:
            return "clip"
        return "frames" if axes <= {"joint", "space", "time"} else "rows"


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


def attend(
    axes: str, queries_keys_values: Sequence[Tokens], rate: float, key: jax.Array | None, how: Computation
) -> tuple[Tokens, jax.Array]:
    """Attention along `axes` of AXES.

    Args:
      queries_keys_values: each of patches [B, T, H, W, N, d] and, where CLS takes part, of CLS [B, 1, N, d].
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
    attention = jax.checkpoint(dot_product_attention, static_argnums=(3, 5)) if how.remat else dot_product_attention
    out, weights = attention(q, k, v, rate, key, how)
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
    one = jnp.expand_dims(cls, tuple(range(1, groups.ndim - 3)))
    return jnp.concatenate([copies(one, (*groups.shape[:-3], 1, *groups.shape[-2:]), cls.dtype), groups], axis=-3)
