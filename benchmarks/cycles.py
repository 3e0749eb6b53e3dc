"""What the TPU compiler thinks that a training step on one chip takes, for every factorization.

    [PYTHONPATH=SCENIC] python benchmarks/cycles.py [WHAT ...]

Forward, backward and SGD with momentum in bfloat16; nothing is run. WHAT is part of a step's name, as v5e; other steps
keep what they had. results/cycles.json has the estimates, those of the same step with Scenic's modules (where SCENIC is
a checkout of it), and those of two layers, which the tests compile again where libtpu is installed. Last, attention
alone over long sequences, by XLA and by the kernel that TPUs have for it, which carries no estimate: of that the memory
is said.
"""

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import AxisType, Mesh, SingleDeviceSharding
from scenic_models import MODELS as SCENIC_MODELS
from scenic_models import available, scenic_model

from vivit_jax.compiled import choose_compiler_options
from vivit_jax.models.dot_product_attention import Computation, dot_product_attention
from vivit_jax.models.initializers import Keys
from vivit_jax.models.video_transformer import VideoTransformer
from vivit_jax.planning import hlo
from vivit_jax.planning.slices import CHIPS, slice_devices
from vivit_jax.summary import cost
from vivit_jax.training.sharding import on_mesh
from vivit_jax.training.step import gradients
from vivit_jax.variants import model_config, preprocessing

RESULTS = Path(__file__).parent / "results" / "cycles.json"
STEPS = {  # model: clips on each chip, and in how many parts one after another
    "vivit_b16x2_fe": {"v5e": (2, 1), "v6e": (4, 2)},
    "vivit_b16x2_fsa": {"v5e": (2, 1), "v6e": (4, 4)},
    "vivit_b16x2_fdpa": {"v5e": (2, 1), "v6e": (4, 2)},
    "vivit_b16x2": {"v5e": (1, 1), "v6e": (2, 2)},
    "timesformer_b": {"v5e": (4, 1), "v6e": (4, 1)},
    "vivit_l16x2_fe": {"v5e": (1, 1)},
}
MANY = 16  # clips in parts of that size, too: what a step does once, as to cast kernels and to change them, counts less
# Everything, in a loop, for the time that compiling takes, and unrolled: clips at a time.
REMATERIALIZED = {"vivit_l16x2_fe": 1, "timesformer_b": 4}
# Of the compiler, which leaves them off. The first three: products that follow each other in one program, and the cost
# of programs as they will be to choose what vector memory holds; then room for larger programs. For v5e alone.
OPTIONS: dict[str, Any] = {
    "xla_tpu_enable_multi_level_output_dot_dot_fusion": True,
    "xla_tpu_enable_multi_level_input_dot_dot_fusion": True,
    "xla_msa_use_bundle_aware_cost_model": True,
    "xla_jf_enable_advanced_multi_output_fusion": True,
    "xla_tpu_scavenge_vmem_for_fusions": True,
    "xla_tpu_scoped_vmem_limit_kib": 24576,
}
# Factorized dot-product attention with them needs more stack than the compiler's threads have by default, and ends in a
# segmentation fault without it. Read from LIBTPU_INIT_ARGS alone.
STACK = "--xla_internal_thread_stack_size_bytes=67108864"
LONG = {"ViViT-B 32 frames": 3137, "TimeSformer-L 96 frames, joint": 18817}  # tokens
SMALL: dict[str, Any] = {"num_layers": 2}  # what the tests compile again
GUARDED = {"vivit_b16x2_fsa": ("v5e", "v6e")}  # on which chips, where not on v5e alone: more is otherwise on v6e


def step(
    name: str, chip: str, batch: int, parts: int = 1, options: dict[str, Any] | None = None, **fields: Any
) -> dict[str, Any]:
    """Compiles one step, of a batch in `parts` as with `train.accumulate`, with `options` of the compiler, and reads
    the estimate off it, per clip."""
    config = model_config(name, 400, dtype="bfloat16", attention_kernel="xla", **fields)  # a kernel has no estimate
    shapes = nnx.eval_shape(lambda: VideoTransformer(config, preprocessing(name, config), Keys(0)))
    graph, state = nnx.split(shapes, nnx.Param)
    params = nnx.to_pure_dict(state)
    return estimated(lambda params, video: nnx.merge(graph, params)(video), params, config, chip, batch, parts, options)


def scenic_step(name: str, chip: str, batch: int, parts: int = 1) -> dict[str, Any]:
    """The same of Scenic's module."""
    module, config = scenic_model(name, jnp.bfloat16), model_config(name, 400, dtype="bfloat16")
    clip = jax.ShapeDtypeStruct((1, config.num_frames, *config.image_size, 3), jnp.bfloat16)
    apply, init = partial(module.apply, train=False), partial(module.init, train=False)
    params = jax.eval_shape(init, jax.random.key(0), clip)
    return estimated(lambda params, x: apply(params, x.astype(jnp.bfloat16)), params, config, chip, batch, parts)


def estimated(
    apply: Callable[..., jax.Array], params: Any, config: Any, chip: str, batch: int, parts: int, options: Any = None
) -> dict[str, Any]:
    """What the compiler says of a training step in which `apply` makes logits of parameters and video."""
    where, optimizer = SingleDeviceSharding(slice_devices(f"{chip}:2x2")[0]), optax.sgd(0.1, 0.9)

    def train(params, opt_state, video, label):
        def loss(params, batch, _):
            logits = apply(params, batch["video"].astype(jnp.float32) / 127.5 - 1).astype(jnp.float32)
            return optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean(), ()

        batch = {"video": video, "label": label}
        (value, _), grads = gradients(loss, params, batch, jax.random.key(0), parts)
        updates, opt_state = optimizer.update(grads, opt_state)
        return optax.apply_updates(params, updates), opt_state, value

    def on_chip(tree):
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), tree)

    video = jax.ShapeDtypeStruct((batch, config.num_frames, *config.image_size, 3), jnp.uint8)
    label = jax.ShapeDtypeStruct((batch,), jnp.int32)
    arguments = map(on_chip, (params, jax.eval_shape(optimizer.init, params), video, label))
    began = time.perf_counter()
    mesh = Mesh(list(where.device_set), ("data",), axis_types=(AxisType.Auto,))
    compiled = jax.jit(on_mesh(train, mesh), donate_argnums=(0, 1)).lower(*arguments).compile(options)
    seconds, module = time.perf_counter() - began, hlo.read(compiled.as_text() or "")
    adds, facts = cost(config)[1], CHIPS[chip]
    peak = cast(float, facts.clock) / facts.flops  # cycles for each operation
    return {
        "batch": batch,
        "parts": parts,
        "estimated_cycles_per_clip": round(module.cycles / batch),
        "estimated_utilization": round(6 * adds * peak * batch / module.cycles, 3),
        "multiply_adds_per_clip": adds,
        "temporary_bytes": int(cast(Any, compiled.memory_analysis()).temp_size_in_bytes),
        "compile_seconds": [round(seconds, 1)],
    }


def attention(length: int, kernel: str) -> dict[str, Any]:
    """Attention of one clip with 12 heads of 64, forward and backward, for v5e."""
    where = SingleDeviceSharding(slice_devices("v5e:2x2")[0])
    heads = [jax.ShapeDtypeStruct((1, length, 12, 64), jnp.bfloat16, sharding=where)] * 4

    def run(q, k, v, change):
        out, pull = jax.vjp(lambda *qkv: dot_product_attention(*qkv, how=Computation(kernel=kernel))[0], q, k, v)
        return out, pull(change)

    compiled = jax.jit(run).lower(*heads).compile()
    module = hlo.read(compiled.as_text() or "")
    memory = int(cast(Any, compiled.memory_analysis()).temp_size_in_bytes)
    return {"estimated_cycles": None if module.kernels else module.cycles, "temporary_bytes": memory}


def steps() -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    for name, chips in STEPS.items():
        for chip, (batch, parts) in chips.items():
            what = f"{name} on {chip}"
            yield what, partial(step, name, chip, batch, parts)
            if chip == "v5e":
                yield f"{what}, with options", partial(step, name, chip, batch, parts, OPTIONS)
            theirs = name in SCENIC_MODELS and available()
            if theirs:
                yield f"Scenic's {what}, in one piece", partial(scenic_step, name, chip, batch)
            if parts > 1:
                yield f"{what}, in one piece", partial(step, name, chip, batch)
                yield f"{what}, {MANY} clips", partial(step, name, chip, MANY, MANY * parts // batch)
                if theirs:
                    yield f"Scenic's {what}", partial(scenic_step, name, chip, batch, parts)
        for chip in GUARDED.get(name, ("v5e",)):
            yield f"{name}, two layers, on {chip}", partial(step, name, chip, 1, **SMALL)
    for name, batch in REMATERIALIZED.items():
        for how, scan in (("scanned", True), ("rematerialized", False)):
            yield f"{name}, {how}, on v5e", partial(step, name, "v5e", batch, scan=scan, remat="full")


def compile_seconds(old: dict[str, Any], new: dict[str, Any]) -> list[float]:
    """Those of every run that gave the same program, since one machine takes twice as long at times."""
    same = old.get("estimated_cycles_per_clip") == new["estimated_cycles_per_clip"]
    return (old["compile_seconds"] if same else []) + new["compile_seconds"]


def measured(name: str) -> dict[str, Any]:
    """By its name, which another process can be sent; functions cannot."""
    return dict(steps())[name]()


def main() -> None:
    os.environ["LIBTPU_INIT_ARGS"] = STACK  # and none of whoever runs this
    choose_compiler_options()  # as `python -m vivit_jax.main` does
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"steps": {}}
    versions = {"jax": jax.__version__, "libtpu": version("libtpu")}
    # A process for each step: in one that had compiled thirteen, the stack did not suffice for the next.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as processes:
        for name, _ in steps():
            if not sys.argv[1:] or any(what in name for what in sys.argv[1:]):
                old, new = found["steps"].get(name, {}), processes.submit(measured, name).result() | versions
                found["steps"][name] = new | {"compile_seconds": compile_seconds(old, new)}
                print(name, json.dumps(found["steps"][name]), flush=True)
                RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    kernels = [(f"{what}, {kernel}", length, kernel) for what, length in LONG.items() for kernel in ("xla", "pallas")]
    found["attention"] = {what: attention(length, kernel) for what, length, kernel in kernels}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
