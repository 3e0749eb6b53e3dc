"""One block for every scheme: its attentions, then an MLP, each a residual branch."""

import math
from collections.abc import Callable
from functools import partial, reduce

import jax
import jax.numpy as jnp
from flax import nnx

from vivit_jax.architecture import ModelConfig
from vivit_jax.models import cudnn
from vivit_jax.models.attention import SCHEMES, Step, attend
from vivit_jax.models.dot_product_attention import Computation, fused, groups_beside
from vivit_jax.models.gelu import gelu
from vivit_jax.models.initializers import Keys, tiny_normal
from vivit_jax.models.layer_norm import layer_norm
from vivit_jax.models.layout import fast_matrix_units, in_order, materialized, only_examples, place
from vivit_jax.models.linear import added, affine, bias_of, copies, linear
from vivit_jax.models.tokens import Line, Tokens, cls_alone, dropped, stochastic_depth

Attended = tuple[Tokens, dict[str, jax.Array]]  # and by axes the attention weights [B, groups, N, L, L]


def keys_of(key: jax.Array | None, count: int):
    return [None] * count if key is None else list(jax.random.split(key, count))


class SelfAttention(nnx.Module):
    """Norm, multi-head attention along the axes of a `Step`, and its projections."""

    def __init__(self, config: ModelConfig, step: Step, per_frame: bool, heads: int, keys: Keys):
        width = config.width
        self.norm = layer_norm(config, keys)
        self.query, self.key, self.value = (linear(config, width, width, keys) for _ in range(3))
        self.out = linear(config, width, width, keys)
        zeros = nnx.initializers.zeros_init()
        self.project = linear(config, width, width, keys, kernel_init=zeros) if step.project else None
        self.step, self.head_width, self.per_frame = step, width // heads, per_frame
        self.dropout, self.attention_dropout = config.dropout, config.attention_dropout
        self.how = Computation(config.attention_chunk, config.attention_kernel, config.remat == "attention")
        self.scan = config.scan

    def __call__(self, tokens: Tokens, key: jax.Array | None, drop_path, only_cls: bool = False) -> Attended:
        """Returns the residual, with `only_cls` that of `cls_alone`."""
        tokens = tokens if self.step.cls else tokens._replace(cls=None)
        *keys, key_out, key_cls, key_path = keys_of(key, len(self.step.axes) + 3)
        normed, drops = jax.tree.map(self.norm, tokens), key is not None and self.dropout > 0
        out, maps = self._way(tokens)(normed, keys, self._projection(alone=drops), only_cls)
        if drops:
            out = dropped(out, self.dropout, (key_out, key_cls))
            out = jax.tree.map(self.project, out) if self.project else out
        return stochastic_depth(out, drop_path, key_path, self.per_frame), maps

    def _way(self, tokens: Tokens) -> Callable[..., Attended]:
        """How `_attend` is gone about, for the same numbers: what is laid otherwise before it is projected."""
        if self.step.axes == ("space",) and tokens.cls is not None:
            return self._attend_in_frames
        if self.step.axes != ("time",) or tokens.cls is not None:
            return self._attend
        # TimeSformer's, from which CLS stays out, gains by the exchange everywhere; ViViT's, by groups on such chips.
        pays = not self.step.cls or (fast_matrix_units() and self._beside(tokens) > 1)
        return self._attend_at_positions if pays else self._attend

    def _projection(self, alone: bool) -> tuple[jax.Array, jax.Array]:
        """Kernel and bias of `out`; unless it is to be `alone`, of `project` after it too: one product for both."""
        kernel, bias = self.out.kernel[...], bias_of(self.out)
        if self.project is None or alone:
            return kernel, bias
        return kernel @ self.project.kernel[...], bias @ self.project.kernel[...] + bias_of(self.project)

    def _attend(self, normed: Tokens, keys, projection, only_cls: bool, lie="", beside=1) -> Attended:
        """Along the step's axes, or where tokens were laid otherwise, along those that they `lie` on."""
        parts, maps, (kernel, bias) = [], {}, projection
        if len(self.step.axes) > 1:  # else TPUs normalize again for each of six products
            normed = jax.tree.map(materialized, normed)
        normed, count = (normed, 0) if only_cls else self._filled(normed, lie or " ".join(self.step.axes), keys[0])
        ask = cls_alone(normed) if only_cls else normed
        for i, axes in enumerate(self.step.axes):
            # Three products: what one gives would have to be taken apart, which TPUs do slowly.
            pairs = (self.query, ask), (self.key, normed), (self.value, normed)
            qkv = [jax.tree.map(partial(self._heads, layer, i), x) for layer, x in pairs]
            how = self.how._replace(beside=beside, count=count)
            out, maps[axes] = attend(lie or axes, qkv, self.attention_dropout, keys[i], how)
            parts.append(jax.tree.map(partial(_joined, kernel[self._share(i)]), out))
        out = jax.tree.map(lambda *parts: added(reduce(jnp.add, parts), bias), *parts)
        return (out._replace(patches=out.patches[:, :, :, :count]) if count else out), maps

    def _filled(self, normed: Tokens, axes: str, key) -> tuple[Tokens, int]:
        """For GPUs' kernel, with one token more where an odd number attends, and that number; 0 where nothing is to
        be done. Queries, keys and values would have to be copied for it."""
        (patches, cls), drops = normed, key is not None and self.attention_dropout > 0
        examples, _, _, count, _ = patches.shape
        last = cls is None and axes in ("space", "joint")
        if not last or count % 2 == 0 or not fused(examples, count, self.head_width, patches.dtype, drops, self.how):
            return normed, 0
        return normed._replace(patches=cudnn.filled(patches, 3)), count

    def _attend_in_frames(self, normed: Tokens, keys, projection, only_cls: bool) -> Attended:
        """The same, with copies of CLS in all frames from here on, which costs TPUs less than joining them later."""
        patches, cls = normed
        assert cls is not None
        line = Line("frames", True, patches.shape[1:4])
        cls = place(copies(cls, (*patches.shape[:2], cls.shape[-1]), cls.dtype), "b t ... d")
        out, maps = self._attend(line.lay(Tokens(patches, cls)), keys, projection, only_cls)
        if only_cls:
            return Tokens(place(out.patches.mean(1, keepdims=True), "b t ... d"), None), maps
        patches, cls = line.lift(out)
        assert cls is not None
        return Tokens(patches, place(cls.mean(1, keepdims=True), "b t ... d")), maps

    def _attend_at_positions(self, normed: Tokens, keys, projection, only_cls: bool) -> Attended:
        """The same over time, positions and time steps exchanged from here on: once, not for q, k and v and back."""
        beside = self._beside(normed)
        if beside > 1:  # else norm's backward pass goes over the exchanged tokens three times
            normed = jax.tree.map(materialized, normed)
        line = Line("positions", False, normed.patches.shape[1:4])
        assert not only_cls  # it takes no part
        out, maps = self._attend(_placed(line.lay(normed)), keys, projection, False, "space", beside)
        out = _placed(line.lift(_placed(out)))
        if fast_matrix_units() and self.step.cls:  # where CLS stays out, but is, this costs more than it saves
            out = jax.tree.map(partial(in_order, platform="tpu"), out)
        return out, maps

    def _beside(self, tokens: Tokens) -> int:
        """How many positions attend over time as one."""
        time, *grid = tokens.patches.shape[1:4]
        # Placed on a mesh, this costs more than it saves; and a scan would keep the weights of both ways.
        return groups_beside(math.prod(grid), time) if only_examples() and not self.scan else 1

    def _share(self, i: int) -> slice:
        """The columns of the heads that attend along the step's axes `i`."""
        width = self.out.in_features // len(self.step.axes)
        return slice(i * width, (i + 1) * width)

    def _heads(self, layer: nnx.Linear, i: int, x: jax.Array) -> jax.Array:
        kernel, bias = layer.kernel[:, self._share(i)], bias_of(layer)[self._share(i)]
        out = affine(x, kernel, bias)
        return place(out.reshape(*x.shape[:-1], -1, self.head_width), "b t ... n d")


def _placed(tokens: Tokens) -> Tokens:
    """On their places. Where it was left to XLA to find them, it computed wrong gradients of kernels."""
    return jax.tree.map(lambda x: place(x, "b t ... d"), tokens)


def _joined(kernel: jax.Array, heads: jax.Array) -> jax.Array:
    """[..., N, d] -> [..., D]."""
    return heads.reshape(*heads.shape[:-2], -1) @ kernel.astype(heads.dtype)


def add(tokens: Tokens, residual: Tokens) -> Tokens:
    """CLS stays as it is where the residual has none."""
    cls = None if residual.cls is None else tokens.cls
    added = _placed(jax.tree.map(jnp.add, tokens._replace(cls=cls), residual))
    return added._replace(cls=tokens.cls) if cls is None else added


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
        hidden = jax.tree.map(lambda x: gelu(x, self.tanh_gelu), hidden)
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

    def __call__(self, tokens: Tokens, key: jax.Array | None, drop_path, only_cls: bool = False) -> Attended:
        """With `only_cls` the last step and the MLP are computed for CLS alone, and `cls_alone` is returned."""
        *keys, key_mlp = keys_of(key, len(self.attention) + 1)
        tokens = jax.tree.map(partial(in_order, platform="cuda"), tokens)
        seen, maps = tokens, {}
        for i, (attention, step_key) in enumerate(zip(self.attention, keys, strict=True)):
            only = only_cls and i == len(self.attention) - 1
            residual, weights = attention(seen, step_key, drop_path, only)
            tokens = add(cls_alone(tokens) if only else tokens, residual)
            seen = seen if self.parallel else tokens
            maps |= weights
        return add(tokens, self.mlp(tokens, key_mlp, drop_path)), maps
