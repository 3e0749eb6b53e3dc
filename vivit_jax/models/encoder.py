"""One stack of blocks for every scheme."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import checkpoint_policies as policies
from jaxtyping import Array, Float

from vivit_jax.models.attention import SCHEMES
from vivit_jax.models.block import Block, keys_of
from vivit_jax.models.initializers import Keys, kernel_initializer
from vivit_jax.models.layer_norm import layer_norm
from vivit_jax.models.layout import fast_matrix_units, place, split
from vivit_jax.models.linear import added, copies, rounded
from vivit_jax.models.tokenizers import Positions
from vivit_jax.models.tokens import Line, Tokens, dropped

# What a forward pass also returns: tokens; with "attention", its weights too, or what a function keeps of them.
Taps = bool | Literal["attention"] | Callable[[str, jax.Array], Any]
REMAT = {  # of whole blocks; "attention" alone is that of `attend`
    "full": policies.nothing_saveable,
    "dots": policies.dots_with_no_batch_dims_saveable,
}


@partial(jax.jit, static_argnames=("graph", "remat", "line", "taps", "only_cls"))
def run_layer(tokens: Tokens, xs, graph: nnx.GraphDef, remat: str, line: Line, taps: Taps, only_cls: bool = False):
    """A block from its parameters, key and rate of stochastic depth; also what `taps` asks for.

    Compiled as a function of its own, so that layers that are alike are traced once.
    """

    def block(tokens, state, key, drop_path):
        return nnx.merge(graph, state)(tokens, key, drop_path, only_cls)

    if remat in REMAT:
        block = jax.checkpoint(block, policy=REMAT[remat])
    tokens, maps = block(tokens, *xs)
    wanted = {"layers": line.lift(tokens)} if taps else {}
    if callable(taps):
        maps = {axes: taps(axes, weights) for axes, weights in maps.items()}
    return tokens, wanted | ({} if isinstance(taps, bool) else {"attention": maps})


class Encoder(nnx.Module):
    """CLS, positions, a stack of blocks, and the norm and pooling that read it out."""

    def __init__(self, config, attention: str, grid, layers: int, heads: int, mlp_dim: int, keys: Keys):
        has_cls, self.scheme = config.pool == "cls", SCHEMES[attention]
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
            patches = added(patches, self.positions.table(tuple(grid)))
            cls = None if cls is None or self.positions.cls is None else cls + self.positions.cls[...]
        if cls is not None:
            batch, frames, *_ = patches.shape
            shape = (batch, frames if self.scheme.per_frame else 1, cls.shape[-1])
            cls = copies(cls, shape, patches.dtype)
        tokens = jax.tree.map(lambda x: place(x, "b t ... d"), Tokens(patches, cls))
        tokens = dropped(tokens, self.config.dropout, (key_input, key_cls))
        tokens, inside = self._run(tokens, key_layers, taps)
        return tokens, inside | ({"output": jax.tree.map(self.norm, tokens)} if taps else {})

    def _run(self, tokens: Tokens, key: jax.Array | None, taps: Taps) -> tuple[Tokens, Any]:
        """The same numbers from the same parameters, scanned or unrolled, rematerialized or not."""
        graphs, states = zip(*(nnx.split(block) for block in self.blocks), strict=True)
        # Without stochastic depth its mask is not computed at all.
        count, rate = len(states), self.config.stochastic_depth
        rates = jnp.linspace(0, rate, count) if rate else None
        line = self._line(tokens)
        layer = partial(run_layer, graph=graphs[0], remat=self.config.remat, line=line, taps=taps)
        tokens = line.lay(tokens)
        if self.config.scan or fast_matrix_units():
            states = [jax.tree.map_with_path(self._computed_with, state) for state in states]
        if self.config.scan:
            stacked = jax.tree.map(lambda *layers: jnp.stack(layers), *states)
            keys = None if key is None else jax.random.split(key, count)
            tokens, outputs = jax.lax.scan(layer, tokens, (stacked, keys, rates))
            return line.lift(tokens), outputs
        outputs, only_cls = [], self._reads_only_cls(line, taps, drops=key is not None)
        for i, (state, layer_key) in enumerate(zip(states, keys_of(key, count), strict=True)):
            xs = state, layer_key, None if rates is None else rates[i]
            tokens, output = layer(tokens, xs, only_cls=only_cls and i == count - 1)
            outputs.append(output)
        if only_cls:  # which is all that is pooled
            return Tokens(tokens.patches, tokens.patches[:, :, 0, 0]), {}
        return line.lift(tokens), jax.tree.map(lambda *layers: jnp.stack(layers), *outputs)

    def _reads_only_cls(self, line: Line, taps: Taps, drops: bool) -> bool:
        """Whether the last layer attends for CLS alone: of patches nobody sees what it would make. Where it drops
        activations it does not, or other ones would be dropped than with `taps`."""
        config, last = self.config, self.scheme.steps[-1]
        drops = drops and (config.dropout > 0 or config.attention_dropout > 0)
        first_in_line = last.cls and (line.join or last.axes == ("space",))
        return config.pool == "cls" and first_in_line and not (taps or drops)

    def _computed_with(self, path, x: jax.Array) -> jax.Array:
        """A parameter as its layer computes with it. If layers in a loop cast it, the backward pass would be left a
        copy of every kernel, and gradients would be stacked in float32; and what `run_layer` rounded in two steps, XLA
        would round again for every part of a batch. What is computed with in float32 stays so."""
        exact = {"norm"}.union(*({"out", "project"} for step in self.scheme.steps if step.project))
        return x if exact & {getattr(part, "key", None) for part in path} else rounded(x, self.config.dtype)

    def _line(self, tokens: Tokens) -> Line:
        # Clips that are split over devices by their time steps stay apart.
        name = "frames" if self.scheme.line == "clip" and split("t") > 1 else self.scheme.line
        join = tokens.cls is not None and (self.scheme.per_frame or name == "clip")
        return Line(name, join, tokens.patches.shape[1:4])

    def pool(self, tokens: Tokens) -> Float[Array, "B T D"]:
        """Normalizes and pools; T is 1 unless frames are alone."""
        if tokens.cls is not None:
            return self.norm(tokens.cls)
        pooled = getattr(jnp, self.config.pool)(
            self.norm(tokens.patches), axis=(2, 3) if self.scheme.per_frame else (1, 2, 3)
        )
        return pooled if self.scheme.per_frame else pooled[:, None]
