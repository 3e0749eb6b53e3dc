"""The state of a video transformer, and how it lies while the layers run."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange


class Tokens(NamedTuple):
    """The state of a video transformer. Pointwise functions go through `jax.tree.map`."""

    patches: jax.Array  # [B, T, H, W, D]
    cls: jax.Array | None  # [B, 1, D], or [B, T, D] one for each frame; None where there is none


# How patches lie while layers run that do not tell rows from columns, nor frames from each other.
# TPUs lay out the last two axes in tiles of 16 x 128, and lose where there are 14 columns. The last is for attention
# over time alone, which wants the time steps of a position together.
LINES = {
    "rows": "b t h w d -> b t h w d",
    "frames": "b t h w d -> b t 1 (h w) d",
    "clip": "b t h w d -> b 1 1 (t h w) d",
    "positions": "b t h w d -> b (h w) 1 t d",
}


class Line(NamedTuple):
    """One of LINES. With `join`, CLS, one for each line, is its first patch, joined once for all layers."""

    name: str
    join: bool
    grid: tuple[int, ...]  # time steps, rows, columns

    def lay(self, tokens: Tokens) -> Tokens:
        patches, cls = rearrange(tokens.patches, LINES[self.name]), tokens.cls
        if not self.join or cls is None:
            return Tokens(patches, cls)
        return Tokens(jnp.concatenate([cls[:, :, None, None], patches], axis=3), None)

    def lift(self, tokens: Tokens) -> Tokens:
        """The inverse of `lay`."""
        (patches, cls), sizes = tokens, dict(zip("thw", self.grid, strict=True))
        if self.join:
            patches, cls = patches[:, :, :, 1:], patches[:, :, 0, 0]
        left, right = LINES[self.name].split(" -> ")
        return Tokens(rearrange(patches, f"{right} -> {left}", **sizes), cls)


def cls_alone(tokens: Tokens) -> Tokens:
    """CLS as the only patch of its line, whether it was joined or not: [B, 1 or T, 1, 1, D]."""
    patches, cls = tokens
    return Tokens(patches[:, :, :1, :1] if cls is None else cls[:, :, None, None], None)


def dropout(x: jax.Array, rate, key: jax.Array | None, shape: tuple[int, ...] | None = None) -> jax.Array:
    """Zeroes entries of `x` at `rate` and scales the others up; the identity without a `key` (evaluation).

    `shape`, broadcast against `x`, says what is dropped as one: `[B, 1, ...]` is stochastic depth.
    """
    if key is None or (isinstance(rate, float) and rate == 0):
        return x
    keep = 1 - jnp.asarray(rate, jnp.float32)
    kept = jax.random.bernoulli(key, keep, shape or x.shape)
    return jnp.where(kept, x / jnp.maximum(keep, 1e-6).astype(x.dtype), 0)


def dropped(tokens: Tokens, rate: float, keys) -> Tokens:
    """Patches and CLS, each with a key of its own."""
    cls = None if tokens.cls is None else dropout(tokens.cls, rate, keys[1])
    return Tokens(dropout(tokens.patches, rate, keys[0]), cls)


def stochastic_depth(residual: Tokens, rate, key: jax.Array | None, per_frame: bool) -> Tokens:
    """Drops a residual branch per example, or per frame, CLS and patches together."""
    if rate is None:
        return residual
    kept = 1 + per_frame  # leading axes
    return jax.tree.map(lambda x: dropout(x, rate, key, (*x.shape[:kept], *(1,) * (x.ndim - kept))), residual)
