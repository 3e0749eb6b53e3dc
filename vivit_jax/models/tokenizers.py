"""From video to tokens: tubelet embedding, uniform frame sampling, positions."""

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float

from vivit_jax.architecture import ModelConfig
from vivit_jax.models.initializers import Keys, tubelet_kernel
from vivit_jax.models.layout import split
from vivit_jax.models.linear import added, rounded


def uniform_frames(frames: int, count: int) -> np.ndarray:
    """Indices of `count` of `frames` frames, evenly spread (ViViT 3.2; the released rule: 32 -> 8 is 4, 7, ... 28).

    Where rounding gave the released code one index more than was asked for (8 -> 2), it is left out.
    """
    if count == frames:
        return np.arange(frames)
    step = frames / (count + 1)
    return np.round(step * np.arange(1, count + 1)).astype(np.int32)


class TubeletEmbedding(nnx.Module):
    """A linear map of each t x h x w tubelet (ViViT 3.2); one frame high, it is ViT's patch embedding."""

    def __init__(self, config: ModelConfig, keys: Keys):
        self.kernel = nnx.Param(tubelet_kernel(config, keys))
        self.bias = nnx.Param(jnp.zeros((config.width,)))
        self.sampled_frames, self.dtype = config.sampled_frames, config.dtype

    def __call__(self, video: Float[Array, "B t h w 3"]) -> Float[Array, "B T H W D"]:
        if self.sampled_frames:
            video = video[:, uniform_frames(video.shape[1], self.sampled_frames)]
        kernel = rounded(self.kernel[...], self.dtype)
        tokens = jax.lax.platform_dependent(video.astype(self.dtype), kernel, cuda=_by_product, default=_by_convolution)
        return added(tokens, self.bias[...])


def _by_convolution(video: jax.Array, kernel: jax.Array) -> jax.Array:
    """With a row of pixels as patches of w * c numbers, so that the window is no wider than one: TPUs multiply these
    fastest. Laid out as rows of tubelets first, it would take them longer than their product. Time steps are examples,
    unless devices share them out: a window that moves along time too takes the compiler longer, for more cycles."""
    t, h, w, c, width = kernel.shape
    steps = 1 if split("t") > 1 else video.shape[1] // t
    rows = rearrange(video, "b (T t) h (W w) c -> (b T) t h W (w c)", T=steps, w=w)
    layout = ("NDHWC", "DHWIO", "NDHWC")
    tokens = jax.lax.conv_general_dilated(
        rows, kernel.reshape(t, h, 1, w * c, width), (t, h, 1), "VALID", dimension_numbers=layout
    )
    return rearrange(tokens, "(b T) t h W d -> b (T t) h W d", T=steps)


def _by_product(video: jax.Array, kernel: jax.Array) -> jax.Array:
    """With tubelets as rows, which GPUs are faster with."""
    t, h, w, *_, width = kernel.shape
    tubelets = rearrange(video, "b (T t) (H h) (W w) c -> b T H W (t h w c)", t=t, h=h, w=w)
    return tubelets @ kernel.reshape(-1, width)


def resize_axis(table: jax.Array, axis: int, size: int, method: str) -> jax.Array:
    """Resamples one axis of a position table: `linear` aligns the corners (ViViT), `nearest` floors (TimeSformer)."""
    old = table.shape[axis]
    if old == size:
        return table
    if method == "nearest":
        return jnp.take(table, np.arange(size) * old // size, axis)
    at = np.linspace(0, old - 1, size) if size > 1 else np.zeros(1)
    low = np.minimum(at.astype(np.int32), old - 1)
    high = np.minimum(low + 1, old - 1)
    weight = jnp.asarray(at - low, jnp.float32).reshape(-1, *(1,) * (table.ndim - axis - 1))
    return jnp.take(table, low, axis) * (1 - weight) + jnp.take(table, high, axis) * weight


class Positions(nnx.Module):
    """Learned positions: one table for the whole grid (`joint`), or one for space and one for time, summed."""

    def __init__(self, config: ModelConfig, grid: tuple[int, int, int], has_cls: bool, keys: Keys):
        time, *space = grid
        separate = config.positions == "space_time"
        steps = time if config.positions == "joint" else 1
        normal = nnx.initializers.normal(0.02)(keys(), (steps, *space, config.width))
        self.space = nnx.Param(normal)
        self.time = nnx.Param(jnp.zeros((time, 1, 1, config.width))) if separate else None
        cls = nnx.initializers.normal(0.02)(keys(), (1, config.width))
        self.cls = nnx.Param(cls) if has_cls else None
        self.resize = config.position_resize

    def table(self, grid: tuple[int, ...]) -> Float[Array, "T H W D"]:
        """Positions for a grid of tokens, interpolated where it is not the one learned; T is 1 where time has none."""
        space = self.space[...]
        for axis, size in enumerate(grid):
            if axis or space.shape[0] > 1:
                space = resize_axis(space, axis, size, self.resize)
        return space if self.time is None else space + resize_axis(self.time[...], 0, grid[0], self.resize)
