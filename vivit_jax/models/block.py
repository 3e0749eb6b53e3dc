"""One block for every scheme: its attentions, then an MLP, each a residual branch."""

import jax
import jax.numpy as jnp
from flax import nnx

from vivit_jax.architecture import ModelConfig
from vivit_jax.models.attention import SCHEMES, Step, Tokens, attend, dropout
from vivit_jax.models.initializers import Keys, kernel_initializer, layer_norm, linear, tiny_normal
from vivit_jax.models.layout import place


def keys_of(key: jax.Array | None, count: int):
    return [None] * count if key is None else list(jax.random.split(key, count))


class SelfAttention(nnx.Module):
    """Norm, multi-head attention along the axes of a `Step`, and its projections."""

    def __init__(self, config: ModelConfig, step: Step, per_frame: bool, heads: int, keys: Keys):
        width = config.width
        self.norm = layer_norm(config, keys)
        # One array of three matrices, each initialized as such.
        init = kernel_initializer(config)
        kernels = [init(keys(), (width, width), jnp.float32) for _ in range(3)]
        self.qkv = nnx.Param(jnp.stack(kernels).reshape(3, width, heads, -1))
        self.qkv_bias = nnx.Param(jnp.zeros((3, heads, width // heads)))
        self.out = linear(config, width, width, keys)
        zeros = nnx.initializers.zeros_init()
        self.project = linear(config, width, width, keys, kernel_init=zeros) if step.project else None
        self.step, self.dtype, self.per_frame = step, config.dtype, per_frame
        self.dropout, self.attention_dropout = config.dropout, config.attention_dropout
        self.chunk, self.remat = config.attention_chunk, config.remat == "attention"

    def __call__(self, tokens: Tokens, key: jax.Array | None, drop_path) -> tuple[Tokens, dict[str, jax.Array]]:
        """Returns the residual, and by axes the attention weights [B, groups, N, L, L]."""
        tokens = tokens if self.step.cls else tokens._replace(cls=None)
        kernels, biases = self.qkv[...].astype(self.dtype), self.qkv_bias[...].astype(self.dtype)
        normed = jax.tree.map(self.norm, tokens)
        # Three products: what one gives would have to be taken apart, which TPUs do slowly.
        qkv = [
            jax.tree.map(
                lambda x, i=i: place(jnp.einsum("...d,dnh->...nh", x, kernels[i]) + biases[i], "b t ... n d"), normed
            )
            for i in range(3)
        ]
        *keys, key_out, key_cls, key_path = keys_of(key, len(self.step.axes) + 3)
        parts, maps = [], {}
        for i, axes in enumerate(self.step.axes):
            share = qkv
            if len(self.step.axes) > 1:
                share = jax.tree.map(lambda x, i=i: jnp.split(x, len(self.step.axes), axis=-2)[i], qkv)
            out, maps[axes] = attend(axes, share, self.attention_dropout, keys[i], self.chunk, self.remat)
            parts.append(out)
        out = jax.tree.map(lambda *heads: self.out(_flat(jnp.concatenate(heads, axis=-2))), *parts)
        out = dropped(out, self.dropout, (key_out, key_cls))
        out = jax.tree.map(self.project, out) if self.project else out
        return stochastic_depth(out, drop_path, key_path, self.per_frame), maps


def _flat(x: jax.Array) -> jax.Array:
    return x.reshape(*x.shape[:-2], -1)


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


def add(tokens: Tokens, residual: Tokens) -> Tokens:
    """CLS stays as it is where the residual has none."""
    if residual.cls is None:
        return Tokens(place(tokens.patches + residual.patches, "b t ... d"), tokens.cls)
    return jax.tree.map(lambda x, change: place(x + change, "b t ... d"), tokens, residual)


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
        hidden = jax.tree.map(lambda x: place(self.up(self.norm(x)), "b t ... m"), tokens)
        hidden = jax.tree.map(lambda x: jax.nn.gelu(x, approximate=self.tanh_gelu), hidden)
        out = jax.tree.map(self.down, dropped(hidden, self.dropout, keys[:2]))
        return stochastic_depth(dropped(out, self.dropout, keys[2:]), drop_path, key_path, self.per_frame)


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
