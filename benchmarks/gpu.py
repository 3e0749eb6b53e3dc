"""Clips per second on one GPU in bfloat16, forward and a training step, beside transformers in the same run.

    pip install -e ".[cuda,peers]" && python benchmarks/gpu.py [--rounds=10] [--small] [WHAT ...]

WHAT is part of a row's name, as TimeSformer; other rows keep what they had. Each at the batch that it is fastest with;
transformers as it is and by torch.compile, with sdpa where it has it. Forward passes from floats, with transformers'
weights in bfloat16. Training steps: forward, backward and SGD with momentum on weights in float32, by autocast in
transformers. A round is a second of steps that follow each other without a look at their results, as in training. All
take turns, and what is reported is the ratio within each round. results/gpu.json. With --small, tiny models on any
device, to try this script.
"""

import argparse
import json
import os
import statistics
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.5")  # the other half is torch's

import jax
import jax.numpy as jnp
import optax
from contest import Run, fastest
from flax import nnx
from on_torch import device, theirs, torch
from train import RESULTS, machine, times_faster

from vivit_jax.architecture import ModelConfig
from vivit_jax.compiled import choose_compiler_options
from vivit_jax.models.initializers import Keys
from vivit_jax.models.video_transformer import VideoTransformer
from vivit_jax.summary import cost
from vivit_jax.variants import model_config, preprocessing

PEAK = {"NVIDIA H100 80GB HBM3": 989e12, "NVIDIA H200": 989e12}  # dense bfloat16 operations a second, as sold
FORWARD, TRAIN = "forward", "training step"
EAGER, COMPILED = "transformers", "transformers, compiled"
MODELS: dict[str, tuple[str, dict[str, Any], dict[str, tuple[int, ...]], str | None]] = {
    # model, what is otherwise, batches, and transformers' classes
    "ViViT-B, factorized encoder, 32 frames": ("vivit_b16x2_fe", {}, {FORWARD: (16, 32), TRAIN: (32, 64)}, None),
    "ViViT-B, model 1, 32 frames": ("vivit_b16x2", {}, {FORWARD: (16, 32), TRAIN: (16, 32)}, "Vivit"),
    "TimeSformer-B, divided, 8 frames": (
        "timesformer_b",
        {},
        {FORWARD: (32, 64), TRAIN: (32, 64)},
        "Timesformer",
    ),
    "ViViT-B, factorized encoder, 32 frames, XLA's attention": (
        "vivit_b16x2_fe",
        {"attention_kernel": "xla"},
        {FORWARD: (32,), TRAIN: (32,)},
        None,
    ),
}
SMALL = dict(image_size=32, num_frames=8, width=64, num_heads=2, mlp_dim=64, num_layers=2)


def ours(title: str, what: str, batch: int, fields: dict[str, Any]) -> tuple[Callable[[], Callable[[], Run]], int]:
    """What compiles and then makes the run; and multiply-adds of one clip."""
    name, otherwise, *_ = MODELS[title]
    config = model_config(name, 400, dtype="bfloat16", **otherwise, **fields)
    graph, state = nnx.split(nnx.eval_shape(lambda: VideoTransformer(config, preprocessing(name, config), Keys(0))))
    params, optimizer = nnx.to_pure_dict(state), optax.sgd(1e-3, 0.9)
    video = jax.ShapeDtypeStruct((batch, config.num_frames, *config.image_size, 3), jnp.bfloat16)

    def forward(params, video):
        return nnx.merge(graph, params)(video)

    def loss(params, video):
        return -jax.nn.log_softmax(forward(params, video))[:, 0].mean()

    def train(params, opt_state, video):
        updates, opt_state = optimizer.update(jax.grad(loss)(params, video), opt_state)
        return optax.apply_updates(params, updates), opt_state

    if what == FORWARD:
        lowered = jax.jit(forward).lower(params, video)
    else:
        states = jax.eval_shape(optimizer.init, params)
        lowered = jax.jit(train, donate_argnums=(0, 1)).lower(params, states, video)

    def make(compiled) -> Run:
        params = jax.tree.map(jnp.copy, weights(config, name))
        clips = jax.random.normal(jax.random.key(0), video.shape, video.dtype)
        state = [params, optimizer.init(params)]

        def run(times: int) -> None:
            out: Any = None
            for _ in range(times):
                if what == FORWARD:
                    out = compiled(state[0], clips)
                else:
                    state[:] = out = compiled(*state, clips)
            jax.block_until_ready(out)

        return run

    def compile_it():
        return partial(make, lowered.compile())

    return compile_it, cost(config)[1]


@cache
def weights(config: ModelConfig, name: str) -> dict[str, Any]:
    return nnx.to_pure_dict(nnx.split(VideoTransformer(config, preprocessing(name, config), Keys(0)))[1])


def contestants(title: str, what: str, programs: dict[int, Callable[[], Run]], small: bool):
    """By name, and the clips per second of each at the batches that were tried."""
    kind = MODELS[title][3]
    found = {"vivit_jax": fastest(programs)}
    if kind:
        of = partial(theirs, kind, what == TRAIN, small=small)
        found[EAGER] = fastest({batch: partial(of, batch, compiled=False) for batch in programs})
        order = sorted(found[EAGER][1], key=found[EAGER][1].__getitem__, reverse=True)
        found[COMPILED] = fastest({batch: partial(of, batch, compiled=True) for batch in order}, first=True)
    return {name: best for name, (best, _) in found.items() if best}, {name: all_ for name, (_, all_) in found.items()}


def compare(title: str, what: str, programs: dict[int, Callable[[], Run]], adds: int, rounds: int, small: bool) -> dict:
    """One row of the results."""
    peers, swept = contestants(title, what, programs, small)
    times: dict[str, list[float]] = {peer: [] for peer in peers}
    for _ in range(rounds):
        for peer, one in peers.items():
            times[peer].append(one.seconds())
    operations = (2 if what == FORWARD else 6) * adds / statistics.median(times["vivit_jax"])
    peak = PEAK.get(jax.devices()[0].device_kind)
    return {
        "batch": {peer: one.batch for peer, one in peers.items()},
        "steps_in_a_round": {peer: one.calls for peer, one in peers.items()},
        "clips_per_second": {peer: 1 / statistics.median(of) for peer, of in times.items()},
        "operations_per_second": operations,
        "utilization": peak and operations / peak,
        "times_faster": {peer: times_faster(times["vivit_jax"], times[peer]) for peer in list(peers)[1:]},
        "seconds_per_clip": times,
        "clips_per_second_by_batch": swept,
    }


def rows(wanted: list[str]) -> Iterator[tuple[str, str]]:
    for title in MODELS:
        for what in (FORWARD, TRAIN):
            if not wanted or any(part in f"{title}, {what}" for part in wanted):
                yield title, what


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", nargs="*")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--small", action="store_true")
    arguments = parser.parse_args()
    fields: dict[str, Any] = SMALL if arguments.small else {}
    choose_compiler_options()  # as `python -m vivit_jax.main` does
    if jax.default_backend() != "gpu" and not arguments.small:
        raise SystemExit("there is no GPU; --small tries this script without")
    torch.set_float32_matmul_precision("high")
    wanted, to = list(rows(arguments.what)), RESULTS / "gpu.json"
    lowered = {(*row, batch): ours(*row, batch, fields) for row in wanted for batch in MODELS[row[0]][2][row[1]]}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        programs = dict(zip(lowered, pool.map(lambda of: of[0](), lowered.values()), strict=True))
    found = json.loads(to.read_text()) if to.exists() and arguments.what else {"results": {}}
    found |= {"machine": machine() | device(), "rounds": arguments.rounds}
    for title, what in wanted:
        mine = {batch: programs[title, what, batch] for batch in MODELS[title][2][what]}
        adds = lowered[title, what, next(iter(mine))][1]
        row = found["results"][f"{title}, {what}"] = compare(title, what, mine, adds, arguments.rounds, arguments.small)
        print(
            title, what, json.dumps({key: told for key, told in row.items() if key != "seconds_per_clip"}), flush=True
        )
        if not arguments.small:
            to.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
