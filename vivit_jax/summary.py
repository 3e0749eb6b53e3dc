"""What models cost: parameters, tokens and multiply-adds, beside what the papers print."""

import dataclasses
import math
import typing
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.extend import core
from jax.interpreters.partial_eval import dce_jaxpr

from vivit_jax.architecture import ModelConfig
from vivit_jax.config import Config
from vivit_jax.data.datasets import known_classes
from vivit_jax.models.initializers import Keys
from vivit_jax.models.video_transformer import VideoTransformer
from vivit_jax.variants import list_models, model_config, preprocessing

# Model -> classes, parameters in millions, 10^9 multiply-adds per view; None where the paper does not print it.
# ViViT table 2 on Kinetics-400; TimeSformer tables 1 (its counts are with 174 classes) and 5 (TFLOPs for three crops).
PAPERS: dict[str, tuple[int, float | None, float | None]] = {
    "vivit_b16x2": (400, 88.9, 455.2),
    "vivit_b16x2_fe": (400, 115.1, 284.4),
    "vivit_b16x2_fsa": (400, 117.3, 372.3),
    "vivit_b16x2_fdpa": (400, 88.9, 277.1),
    "timesformer_b": (174, 121.4, 590 / 3),
    "timesformer_b_space": (174, 85.9, None),
    "timesformer_b_joint": (174, 85.9, None),
    "timesformer_b_local_global": (174, 121.4, None),
    "timesformer_b_axial": (174, 156.8, None),
    "timesformer_hr": (174, None, 5110 / 3),
    "timesformer_l": (174, None, 7140 / 3),
}


def multiply_adds(jaxpr: core.Jaxpr) -> int:
    """Multiply-adds of the matrix products in a jaxpr, those of loops and inner functions included."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "conv_general_dilated":
            kernel, out = (typing.cast(Any, x.aval) for x in (equation.invars[1], equation.outvars[0]))
            outputs = kernel.shape[equation.params["dimension_numbers"].rhs_spec[0]]
            total += math.prod(out.shape) * math.prod(kernel.shape) // outputs
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left, out = (typing.cast(Any, x.aval) for x in (equation.invars[0], equation.outvars[0]))
            total += math.prod(out.shape) * math.prod(left.shape[axis] for axis in contracted)
        if equation.primitive.name == "cond":  # one thing for several platforms
            total += min(multiply_adds(branch.jaxpr) for branch in equation.params["branches"])
            continue
        repeats = equation.params["length"] if equation.primitive.name == "scan" else 1
        total += repeats * sum(map(multiply_adds, _inner(equation.params)))
    return total


def _inner(params: dict[str, Any]) -> Iterator[core.Jaxpr]:
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, core.ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, core.Jaxpr):
                yield item


def cost(config: ModelConfig) -> tuple[int, int]:
    """Parameters, and multiply-adds of one view forward, without computing anything."""
    # What a kernel multiplies is not to be seen; and with dropout, no two projections are computed as one.
    config = dataclasses.replace(config, attention_kernel="xla", dropout=0.1)
    feeding = preprocessing("", config)
    graph, state = nnx.split(nnx.eval_shape(lambda: VideoTransformer(config, feeding, Keys(0))))
    view = jax.ShapeDtypeStruct((1, config.num_frames, *config.image_size, 3), jnp.float32)
    # With what the last layer makes of the patches, which the papers count, and without the weights, which no one sees.
    forward = jax.make_jaxpr(lambda *args: nnx.merge(graph, args[0])(args[1], key=args[2], return_taps=True))(
        state, view, jax.eval_shape(lambda: jax.random.key(0))
    ).jaxpr
    needed, _ = dce_jaxpr(forward, [True] * len(forward.outvars))
    return sum(x.size for x in jax.tree.leaves(state)), multiply_adds(needed)


def spoken(multiply_adds: int) -> str:
    return f"{multiply_adds / 1e9:,.1f}G" if multiply_adds >= 1e9 else f"{multiply_adds / 1e6:,.1f}M"


def row(name: str, config: ModelConfig) -> str:
    """One model's line of the table, in Markdown."""
    parameters, adds = cost(config)
    _, *paper = PAPERS.get(name, (0, None, None))
    cells = [
        name,
        f"{config.num_frames} x {config.image_size[0]} x {config.image_size[1]}",
        " x ".join(map(str, config.grid)),
        " + ".join(map(str, config.heads.values())),
        f"{parameters:,}",
        "" if paper[0] is None else f"{paper[0]:.1f}M",
        spoken(adds),
        "" if paper[1] is None else f"{paper[1]:,.1f}G",
    ]
    return f"| {' | '.join(map(str, cells))} |"


def configured(config: Config) -> dict[str, ModelConfig]:
    """A configuration's model, with as many classes as it says, or its dataset has where that is there, or one."""
    return {config.model.name: config.model.architecture(known_classes(config.data) or 1)}


def table(models: dict[str, ModelConfig] | None = None) -> Iterator[str]:
    """Lines of a Markdown table of `models`, by default all of `list_models()`."""
    if models is None:
        names = [*PAPERS, *(name for name in list_models() if name not in PAPERS)]
        # Scanned, a layer is traced once instead of `num_layers` times; the numbers are the same.
        models = {name: model_config(name, PAPERS.get(name, (400,))[0], scan=True) for name in names}
    yield "| model | frames x pixels | tokens | classes | parameters | paper | multiply-adds per view | paper |"
    yield "|---|---|---|---|---|---|---|---|"
    for name, config in models.items():
        yield row(name, config)
