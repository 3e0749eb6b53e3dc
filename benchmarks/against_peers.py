"""Seconds of a forward pass, and of forward and backward, beside peers on the same CPU in the same run.

    pip install -e ".[peers]" && PYTHONPATH=SCENIC python benchmarks/against_peers.py [--rounds=10]

SCENIC is a checkout of github.com/google-research/scenic. float32, one clip, random weights; all take turns, and what
is reported is the ratio within each round. results/against_peers.json; rounds are added to those that it has of the
same machine and versions, since one run on a busy machine says little. Remove it when the models change.
"""

import argparse
import importlib
import json
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # torch's threads do not spin while it is the other's turn

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from scenic_models import SCENIC, available, scenic_model
from train import RESULTS, earlier, machine, times_faster

import vivit_jax
from vivit_jax.memory import compute_in_kept_memory

torch: Any = importlib.import_module("torch")
transformers: Any = importlib.import_module("transformers")
Run = Callable[[], Any]
WARM_UP = 2  # rounds
FORWARD, BACKWARD = "forward", "forward and backward"


def ours(name: str, video: np.ndarray) -> dict[str, Run]:
    """Forward, and forward and backward, of the model by this name."""
    graph, state = nnx.split(vivit_jax.create_model(name, 400), nnx.Param)
    params, clip = nnx.to_pure_dict(state), jnp.asarray(video)
    return _jitted(lambda params, clip: nnx.merge(graph, params)(clip), params, clip)


def _jitted(apply: Callable[..., jax.Array], params: Any, clip: jax.Array) -> dict[str, Run]:
    def loss(params, clip):
        return -jax.nn.log_softmax(apply(params, clip))[:, 0].mean()

    forward, backward = jax.jit(apply), jax.jit(jax.value_and_grad(loss))
    return {
        FORWARD: lambda: jax.block_until_ready(forward(params, clip)),
        BACKWARD: lambda: jax.block_until_ready(backward(params, clip)),
    }


def of_scenic(module: Any, video: np.ndarray) -> dict[str, Run]:
    """The same of a module of Scenic."""
    clip = jnp.asarray(video)
    params = jax.jit(lambda key: module.init(key, clip, train=False))(jax.random.key(0))["params"]
    return _jitted(lambda params, clip: module.apply({"params": params}, clip, train=False), params, clip)


def of_transformers(model: Any, video: np.ndarray) -> dict[str, Run]:
    """The same of a model of transformers."""
    model, clip = model.eval(), torch.from_numpy(video).permute(0, 1, 4, 2, 3).contiguous()
    label = torch.zeros(len(video), dtype=torch.long)

    def forward():
        with torch.inference_mode():
            return model(clip).logits

    def backward():
        model.zero_grad()
        torch.nn.functional.cross_entropy(model(clip).logits, label).backward()

    return {FORWARD: forward, BACKWARD: backward}


def timesformer() -> Any:
    return transformers.TimesformerForVideoClassification(transformers.TimesformerConfig(num_labels=400))


def vivit() -> Any:
    config = transformers.VivitConfig(num_labels=400, attn_implementation="sdpa")
    return transformers.VivitForVideoClassification(config)


TITLES = {
    "timesformer_b": "TimeSformer-B, divided, 8 frames",
    "vivit_b16x2": "ViViT-B, model 1, 32 frames",
    "vivit_b16x2_fe": "ViViT-B, factorized encoder, 32 frames",
}
# Our model, what is timed, its peers and how they are made. For Scenic's model 1 backwards memory hardly suffices
# beside the others.
TIMED: list[tuple[str, str, dict[str, Callable[[], Any]]]] = [
    ("timesformer_b", FORWARD, {"transformers": timesformer}),
    ("timesformer_b", BACKWARD, {"transformers": timesformer}),
    ("vivit_b16x2", FORWARD, {"transformers": vivit, "scenic": partial(scenic_model, "vivit_b16x2")}),
    ("vivit_b16x2", BACKWARD, {"transformers": vivit}),
    ("vivit_b16x2_fe", FORWARD, {"scenic": partial(scenic_model, "vivit_b16x2_fe")}),
    ("vivit_b16x2_fe", BACKWARD, {"scenic": partial(scenic_model, "vivit_b16x2_fe")}),
]
RUNS = {"transformers": of_transformers, "scenic": of_scenic}


def seconds(run: Run) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def facts() -> dict[str, Any]:
    versions = {name: version(name) for name in ("torch", "transformers")}
    return machine() | versions | {"torch_threads": torch.get_num_threads()}


def in_turns(runs: dict[str, Run], rounds: int) -> dict[str, list[float]]:
    """Seconds by name; the first rounds, which compile and allocate, do not count."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(-WARM_UP, rounds):
        for name, run in runs.items():
            took = seconds(run)
            if number >= 0:
                times[name].append(took)
    return times


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    if not available():  # shown now, not minutes later
        raise SystemExit("scenic cannot be imported; put a checkout of github.com/google-research/scenic on PYTHONPATH")
    importlib.import_module(SCENIC)
    compute_in_kept_memory()  # as `python -m vivit_jax.main` does; torch then keeps its memory as well
    torch.manual_seed(0)
    known, found = earlier(RESULTS / "against_peers.json", facts()).get("results", {}), {}
    for name, what, peers in TIMED:
        frames = vivit_jax.create_model(name, 400).config.num_frames
        video = np.random.default_rng(0).standard_normal((1, frames, 224, 224, 3)).astype(np.float32)
        runs = {"vivit_jax": ours(name, video)[what]}
        runs |= {peer: RUNS[peer](make(), video)[what] for peer, make in peers.items()}
        row = f"{TITLES[name]}, {what}"
        before = known.get(row, {}).get("seconds", {})
        times = {who: before.get(who, []) + new for who, new in in_turns(runs, rounds).items()}
        found[row] = {
            "rounds": len(times["vivit_jax"]),
            "median_seconds": {name: statistics.median(of) for name, of in times.items()},
            "times_faster": {peer: times_faster(times["vivit_jax"], times[peer]) for peer in peers},
            "seconds": times,
        }
        print(row, json.dumps(found[row]), flush=True)
    (RESULTS / "against_peers.json").write_text(json.dumps({"machine": facts(), "results": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
