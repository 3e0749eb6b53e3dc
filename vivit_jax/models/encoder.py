"""One block and one stack of them, for every scheme."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import checkpoint_policies as policies
from jaxtyping import Array, Float

from vivit_jax.architecture import ModelConfig
from vivit_jax.models.attention import SCHEMES, Step, Tokens, attend, dropout
from vivit_jax.models.initializers import Keys, kernel_initializer, layer_norm, linear, tiny_normal
from vivit_jax.models.layout import place
from vivit_jax.models.tokenizers import Positions

Taps = bool | Literal["attention"]  # what a forward pass also returns: tokens; with "attention", its weights too
REMAT = {
    "full": policies.nothing_saveable,
    "dots": policies.dots_with_no_batch_dims_saveable,
    "attention": policies.save_anything_except_these_names("attention"),
}


def keys_of(key: jax.Array | None, count: int):
    return [None] * count if key is None else list(jax.random.split(key, count))


class SelfAttention(nnx.Module):
    """Norm, multi-head attention along the axes of a `Step`, and its projections."""

    def __init__(self, config: ModelConfig, step: Step, per_frame: bool, heads: int, keys: Keys):
        width = config.width
        self.norm = layer_norm(config, keys)
        # Query, key and value are initialized as the three matrices they are, and computed as one.
        init = kernel_initializer(config)
        kernels = [init(keys(), (width, width), jnp.float32) for _ in range(3)]
        self.qkv = nnx.Param(jnp.stack(kernels).reshape(3, width, heads, -1))
        self.qkv_bias = nnx.Param(jnp.zeros((3, heads, width // heads)))
        self.out = linear(config, width, width, keys)
        zeros = nnx.initializers.zeros_init()
        self.project = linear(config, width, width, keys, kernel_init=zeros) if step.project else None
        self.step, self.dtype, self.per_frame = step, config.dtype, per_frame
        self.dropout, self.attention_dropout = config.dropout, config.attention_dropout
        self.chunk = config.attention_chunk

    def __call__(self, tokens: Tokens, key: jax.Array | None, drop_path) -> tuple[Tokens, dict[str, jax.Array]]:
        """Returns the residual, and by axes the attention weights [B, groups, N, L, L]."""
        tokens = tokens if self.step.cls else tokens._replace(cls=None)
        kernel, bias = self.qkv[...].astype(self.dtype), self.qkv_bias[...].astype(self.dtype)

        def project(x: jax.Array) -> jax.Array:
            projected = jnp.einsum("...d,sdnh->s...nh", self.norm(x), kernel)
            projected += jnp.expand_dims(bias, tuple(range(1, x.ndim)))
            return place(projected, "s b t h w n d" if x.ndim == 5 else "s b t n d")

        qkv = jax.tree.map(project, tokens)
        *keys, key_out, key_cls, key_path = keys_of(key, len(self.step.axes) + 3)
        parts, maps = [], {}
        for i, axes in enumerate(self.step.axes):
            share = jax.tree.map(lambda x, i=i: jnp.split(x, len(self.step.axes), axis=-2)[i], qkv)
            out, maps[axes] = attend(axes, share, self.attention_dropout, keys[i], self.chunk)
            parts.append(out)
        out = jax.tree.map(lambda *heads: self.out(_flat(jnp.concatenate(heads, axis=-2))), *parts)
        out = _dropout(out, self.dropout, (key_out, key_cls))
        out = jax.tree.map(self.project, out) if self.project else out
        return stochastic_depth(out, drop_path, key_path, self.per_frame), maps


def _flat(x: jax.Array) -> jax.Array:
    return x.reshape(*x.shape[:-2], -1)


def _dropout(tokens: Tokens, rate: float, keys) -> Tokens:
    cls = None if tokens.cls is None else dropout(tokens.cls, rate, keys[1])
    return Tokens(dropout(tokens.patches, rate, keys[0]), cls)


def stochastic_depth(residual: Tokens, rate, key: jax.Array | None, per_frame: bool) -> Tokens:
    """Drops a residual branch per example, or per frame, CLS and patches together."""
    if rate is None:
        return residual
    kept = 1 + per_frame  # leading axes
    return jax.tree.map(lambda x: dropout(x, rate, key, (*x.shape[:kept], *(1,) * (x.ndim - kept))), residual)


def add(tokens: Tokens, residual: Tokens) -> Tokens:
    """CLS stays as it is where the residual has none."""
    cls = tokens.cls if residual.cls is None or tokens.cls is None else tokens.cls + residual.cls
    return placed(Tokens(tokens.patches + residual.patches, cls))


def placed(tokens: Tokens) -> Tokens:
    return Tokens(place(tokens.patches, "b t h w d"), None if tokens.cls is None else place(tokens.cls, "b t d"))


class Mlp(nnx.Module):
    """Norm and a two-layer perceptron."""

    def __init__(self, config: ModelConfig, hidden: int, per_frame: bool, keys: Keys):
        bias = tiny_normal if config.initializer == "xavier" else nnx.initializers.zeros_init()
        self.norm = layer_norm(config, keys)
        self.up = linear(config, config.width, hidden, keys, bias_init=bias)
        self.down = linear(config, hidden, config.width, keys, bias_init=bias)
        self.tanh_gelu, self.dropout, self.per_frame = config.gelu == "tanh", config.dropout, per_frame

    def __call__(self, tokens: Tokens, key: jax.Array | None, drop_path) -> Tokens:
        *keys, key_path = keys_of(key, 5)
        hidden = jax.tree.map(lambda x: place(self.up(self.norm(x)), "b t h w m" if x.ndim == 5 else "b t m"), tokens)
        hidden = jax.tree.map(lambda x: jax.nn.gelu(x, approximate=self.tanh_gelu), hidden)
        out = jax.tree.map(self.down, _dropout(hidden, self.dropout, keys[:2]))
        return stochastic_depth(_dropout(out, self.dropout, keys[2:]), drop_path, key_path, self.per_frame)


class Block(nnx.Module):
    """The attention steps of a scheme, then the MLP, each a residual branch."""

    def __init__(self, config: ModelConfig, attention: str, heads: int, mlp_dim: int, keys: Keys):
        scheme = SCHEMES[attention]
        steps = [s._replace(cls=True) if config.cls_in_time and s.axes == ("time",) else s for s in scheme.steps]
        self.attention = nnx.List([SelfAttention(config, step, scheme.per_frame, heads, keys) for step in steps])
        self.mlp = Mlp(config, mlp_dim, scheme.per_frame, keys)
        self.parallel = scheme.parallel

    def __call__(self, tokens: Tokens, key: jax.Array | None, drop_path) -> tuple[Tokens, dict[str, jax.Array]]:
        *keys, key_mlp = keys_of(key, len(self.attention) + 1)
        seen, maps = tokens, {}
        for attention, step_key in zip(self.attention, keys, strict=True):
            residual, weights = attention(seen, step_key, drop_path)
            tokens = add(tokens, residual)
            seen = seen if self.parallel else tokens
            maps |= weights
        return add(tokens, self.mlp(tokens, key_mlp, drop_path)), maps


class Encoder(nnx.Module):
    """CLS, positions, a stack of blocks, and the norm and pooling that read it out."""

    def __init__(self, config, attention: str, grid, layers: int, heads: int, mlp_dim: int, keys: Keys):
        has_cls, self.per_frame = config.pool == "cls", SCHEMES[attention].per_frame
        init = nnx.initializers.zeros_init() if config.initializer == "xavier" else kernel_initializer(config)
        self.cls = nnx.Param(init(keys(), (1, config.width), jnp.float32)) if has_cls else None
        self.positions = Positions(config, grid, has_cls, keys) if config.positions != "none" else None
        self.blocks = nnx.List([Block(config, attention, heads, mlp_dim, keys) for _ in range(layers)])
        self.norm = layer_norm(config, keys)
        self.config = config

    def __call__(self, patches: Float[Array, "B T H W D"], key: jax.Array | None, taps: Taps) -> tuple[Tokens, Any]:
        """Runs the stack; also returns what `taps` asks for, empty without. Frames alone have a CLS each."""
        key_input, key_cls, key_layers = keys_of(key, 3)
        cls = None if self.cls is None else self.cls[...]
        if self.positions is not None:
            _, *grid, _ = patches.shape
            patches = patches + self.positions.table(tuple(grid)).astype(patches.dtype)
            cls = None if cls is None or self.positions.cls is None else cls + self.positions.cls[...]
        if cls is not None:
            batch, frames, *_ = patches.shape
            shape = (batch, frames if self.per_frame else 1, cls.shape[-1])
            cls = jnp.broadcast_to(cls.astype(patches.dtype), shape)
        tokens = _dropout(placed(Tokens(patches, cls)), self.config.dropout, (key_input, key_cls))
        tokens, inside = self._run(tokens, key_layers, taps)
        return tokens, inside | ({"output": jax.tree.map(self.norm, tokens)} if taps else {})

    def _run(self, tokens: Tokens, key: jax.Array | None, taps: Taps) -> tuple[Tokens, Any]:
        """The same numbers from the same parameters, scanned or unrolled, rematerialized or not."""
        graphs, states = zip(*(nnx.split(block) for block in self.blocks), strict=True)
        # Without stochastic depth its mask is not computed at all; scanned, the rate has to be an array.
        count, rate = len(states), self.config.stochastic_depth
        rates = [rate * i / max(count - 1, 1) for i in range(count)]

        def layer(tokens, xs):
            state, key, drop_path = xs
            tokens, maps = nnx.merge(graphs[0], state)(tokens, key, drop_path)
            wanted = {"layers": tokens} if taps else {}
            return tokens, wanted | ({"attention": maps} if taps == "attention" else {})

        if self.config.remat != "none":
            layer = jax.checkpoint(layer, policy=REMAT[self.config.remat])
        if self.config.scan:
            stacked = jax.tree.map(lambda *layers: jnp.stack(layers), *states)
            keys = None if key is None else jax.random.split(key, count)
            return jax.lax.scan(layer, tokens, (stacked, keys, jnp.asarray(rates) if rate else None))
        outputs = []
        for state, layer_key, layer_rate in zip(states, keys_of(key, count), rates, strict=True):
            tokens, output = layer(tokens, (state, layer_key, layer_rate if rate else None))
            outputs.append(output)
        return tokens, jax.tree.map(lambda *layers: jnp.stack(layers), *outputs)

    def pool(self, tokens: Tokens) -> Float[Array, "B T D"]:
        """Normalizes and pools; T is 1 unless frames are alone."""
        if tokens.cls is not None:
            return self.norm(tokens.cls)
        pooled = getattr(jnp, self.config.pool)(self.norm(tokens.patches), axis=(2, 3) if self.per_frame else (1, 2, 3))
        return pooled if self.per_frame else pooled[:, None]
