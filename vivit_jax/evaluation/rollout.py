"""Attention rollout (Abnar & Zuidema, 2020) for every space-time scheme, and what single heads attend to.

A step of attention is a matrix over all tokens: a token's row has its weights within its group; CLS, which joins every
group and takes the mean, has the mean of its rows; where CLS stays out, its row is the identity's. With the residual
beside it a step becomes (I + A) / 2, steps in parallel (I + A + A') / 3, heads being averaged, and the rollout is their
product over all steps of all layers. Projections, MLPs and the sizes of values are not looked at.

The product is taken from the pooled token downwards, so what is kept is one row of it, never the [N, N] matrix.
"""

import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange

from vivit_jax.errors import UserError
from vivit_jax.models.attention import AXES, SCHEMES
from vivit_jax.models.video_transformer import VideoTransformer


class Kept(NamedTuple):
    """What is needed of weights [..., groups, heads, L, L]: far less of them, where L is large."""

    mean: jax.Array  # over heads: [..., groups, L, L]
    first: jax.Array  # row of each head, which is CLS's where it takes part: [..., groups, heads, L]
    rows: jax.Array  # their mean, of each head: [..., groups, heads, L]


def keep(axes: str, weights: jax.Array) -> Kept:
    """For `return_taps`: a layer's weights never leave it."""
    return Kept(weights.mean(-3), weights[..., 0, :], weights.mean(-2))


def kept(taps: dict[str, Any], name: str) -> dict[str, Kept]:
    """By axes, of all layers of an encoder."""
    return {axes: x if isinstance(x, Kept) else keep(axes, x) for axes, x in taps[name]["attention"].items()}


class Row(NamedTuple):
    """A row over all tokens."""

    patches: jax.Array  # [B, T, H, W]
    cls: jax.Array | None  # [B, 1]; [B, T] where frames are examples of their own; None where there is none


def grouped(axes: str, patches: jax.Array) -> jax.Array:
    """[B, T, H, W] -> [B, groups, tokens], as AXES has them."""
    pattern, sizes = _pattern(axes, patches.shape)
    return rearrange(patches, pattern, **sizes)


def ungrouped(axes: str, groups: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The inverse of `grouped`, with the shape that it started from."""
    pattern, sizes = _pattern(axes, shape)
    return rearrange(groups, " -> ".join(reversed(pattern.split(" -> "))), **sizes)


def _pattern(axes: str, shape: tuple[int, ...]) -> tuple[str, dict[str, int]]:
    left, right = AXES[axes].replace(" n d", "").split(" -> ")
    batch, *groups, tokens = re.findall(r"\([^)]*\)|\w", right)
    right = f"{batch} ({' '.join(group.strip('()') for group in groups)}) {tokens}"
    sizes = {name: 2 for name in "ijk" if name in left}
    for axis, size, half in zip("thw", shape[1:], "kij", strict=True):
        sizes[axis] = size // sizes.get(half, 1)
    return f"{left} -> {right}", sizes


def takes_cls(axes: str, weights: jax.Array, row: Row) -> bool:
    """Whether CLS is one of the tokens of each group, of weights [B, groups, L, L]."""
    return weights.shape[-1] != grouped(axes, row.patches).shape[-1]


def attended(axes: str, weights: jax.Array, row: Row) -> Row:
    """`row` times the matrix of one attention; what CLS holds is left out where it takes no part."""
    groups = grouped(axes, row.patches)
    if row.cls is None or not takes_cls(axes, weights, row):
        out = jnp.einsum("bgl,bglm->bgm", groups, weights)
        return Row(ungrouped(axes, out, row.patches.shape), None if row.cls is None else jnp.zeros_like(row.cls))
    copies = groups.shape[1] // row.cls.shape[1]
    cls = jnp.repeat(row.cls / copies, copies, axis=1)[..., None]
    out = jnp.einsum("bgl,bglm->bgm", jnp.concatenate([cls, groups], axis=-1), weights)
    cls = out[..., 0].reshape(*row.cls.shape, copies).sum(-1)
    return Row(ungrouped(axes, out[..., 1:], row.patches.shape), cls)


def through(row: Row, steps: list[dict[str, jax.Array]]) -> Row:
    """`row` times the matrix of steps that see the same input, and of the residual beside them.

    Args:
      steps: of each, by axes, weights [B, groups, L, L]; of several axes each has an equal part of the heads.
    """
    with_cls = sum(all(takes_cls(axes, weights, row) for axes, weights in step.items()) for step in steps)
    row = Row(row.patches / (1 + len(steps)), None if row.cls is None else row.cls / (1 + with_cls))
    parts = [attended(axes, weights / len(step), row) for step in steps for axes, weights in step.items()]
    return jax.tree.map(lambda *xs: sum(xs), row, *parts)


def down(row: Row, attention: str, maps: dict[str, jax.Array]) -> Row:
    """`row` times the rollout of a stack of blocks, from its weights by axes, [layers, B, groups, L, L]."""
    scheme = SCHEMES[attention]
    for layer in reversed(range(next(iter(maps.values())).shape[0])):
        steps = [{axes: maps[axes][layer] for axes in step.axes} for step in scheme.steps]
        for together in [steps] if scheme.parallel else [[step] for step in reversed(steps)]:
            row = through(row, together)
    return row


def pooled(shape: tuple[int, ...], pool: str, frames: jax.Array | None = None) -> Row:
    """What a head, or the temporal encoder, sees of an encoder's tokens [B, T, H, W], as a row over them.

    `frames` [B, T] are the parts of frames that are pooled each by itself.
    """
    if frames is None:
        patches, cls = jnp.full(shape, 1 / (shape[1] * shape[2] * shape[3])), jnp.ones((shape[0], 1))
    else:
        patches, cls = jnp.broadcast_to(frames[..., None, None] / (shape[2] * shape[3]), shape), frames
    return Row(jnp.zeros(shape), cls) if pool == "cls" else Row(patches, None)


def rollout(model: VideoTransformer, taps: dict[str, Any]) -> jax.Array:
    """How much of what is classified comes from each token, by attention alone.

    Args:
      taps: of a call with return_taps=keep, or "attention".
    Returns:
      [B, T, H, W]; it adds up to 1, less what stays with CLS.
    """
    config, shape = model.config, taps["embedding"].shape[:4]
    encoders = [name for name in ("encoder", "temporal_encoder") if name in taps]
    maps = {name: {axes: x.mean for axes, x in kept(taps, name).items()} for name in encoders}
    frames = None
    if "temporal_encoder" in maps:
        steps = pooled((*shape[:2], 1, 1), config.pool)
        frames = down(steps, "time", maps["temporal_encoder"]).patches[..., 0, 0]
    elif SCHEMES[config.attention].per_frame:  # frames are averaged
        frames = jnp.full(shape[:2], 1 / shape[1])
    return down(pooled(shape, config.pool, frames), config.attention, maps["encoder"]).patches


def head_maps(model: VideoTransformer, taps: dict[str, Any], layer: int = -1) -> dict[str, jax.Array]:
    """What each head of a layer's attentions hands to CLS, or where CLS takes no part to the patches on average.

    In the spatial encoder of two the CLS is every frame's own; of the temporal one the last layer is beside it.

    Returns:
      By axes, as in AXES, [B, heads, T, H, W]; "temporal", [B, heads, T, 1, 1], of the factorized encoder's second.
    Raises:
      UserError: there is no such layer.
    """
    shape, config = taps["embedding"].shape[:4], model.config
    if not -config.num_layers <= layer < config.num_layers:
        raise UserError(
            f"layer: {layer} is none of the {config.num_layers} of the model, counted from 0 or from -1 back"
        )
    copies = shape[1] if SCHEMES[config.attention].per_frame else 1
    found = {axes: _by_head(axes, x, layer, shape, copies) for axes, x in kept(taps, "encoder").items()}
    if "temporal_encoder" in taps:
        temporal = kept(taps, "temporal_encoder")["time"]
        found["temporal"] = _by_head("time", temporal, -1, (*shape[:2], 1, 1), 1)
    return found


def _by_head(axes: str, of: Kept, layer: int, shape: tuple[int, ...], copies: int) -> jax.Array:
    """[layers, B, groups, heads, L] -> [B, heads, T, H, W]; each of the `copies` of CLS is in a part of the groups."""
    first, rows = of.first[layer], of.rows[layer]
    tokens = shape[1] * shape[2] * shape[3] // first.shape[1]
    maps = (rows if first.shape[-1] == tokens else first[..., 1:]) * (copies / first.shape[1])
    return jax.vmap(lambda of_head: ungrouped(axes, of_head, shape), in_axes=2, out_axes=1)(maps)
