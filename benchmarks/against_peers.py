"""Seconds of a forward pass, and of forward and backward, beside transformers on the same CPU in the same run.

    pip install -e ".[peers]" && python benchmarks/against_peers.py [--rounds=10]

float32, one clip, random weights; the two take turns, and what is reported is the ratio within each round.
results/against_peers.json. The forward pass of the factorized encoder, which transformers lacks, is timed alone.
"""

import argparse
import importlib
import json
import os
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # torch's threads do not spin while it is the other's turn

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from train import RESULTS, machine

import vivit_jax
from vivit_jax.memory import compute_in_kept_memory

torch: Any = importlib.import_module("torch")
transformers: Any = importlib.import_module("transformers")
Run = Callable[[], Any]
WARM_UP = 2  # rounds
PEERS: dict[str, tuple[str, Callable[[], Any]]] = {
    "TimeSformer-B, divided, 8 frames": (
        "timesformer_b",
        lambda: transformers.TimesformerForVideoClassification(transformers.TimesformerConfig(num_labels=400)),
    ),
    "ViViT-B, model 1, 32 frames": (
        "vivit_b16x2",
        lambda: transformers.VivitForVideoClassification(
            transformers.VivitConfig(num_labels=400, attn_implementation="sdpa")
        ),
    ),
}


def ours(name: str, video: np.ndarray) -> dict[str, Run]:
    """Forward, and forward and backward, of the model by this name."""
    graph, state = nnx.split(vivit_jax.create_model(name, 400), nnx.Param)
    params, clip = nnx.to_pure_dict(state), jnp.asarray(video)

    def loss(params, clip):
        return -jax.nn.log_softmax(nnx.merge(graph, params)(clip))[:, 0].mean()

    forward, backward = jax.jit(lambda params, clip: nnx.merge(graph, params)(clip)), jax.jit(jax.value_and_grad(loss))
    return {
        "forward": lambda: jax.block_until_ready(forward(params, clip)),
        "forward and backward": lambda: jax.block_until_ready(backward(params, clip)),
    }


def theirs(make: Callable[[], Any], video: np.ndarray) -> dict[str, Run]:
    """The same of a model of transformers."""
    model, clip = make().eval(), torch.from_numpy(video).permute(0, 1, 4, 2, 3).contiguous()
    label = torch.zeros(len(video), dtype=torch.long)

    def forward():
        with torch.inference_mode():
            return model(clip).logits

    def backward():
        model.zero_grad()
        torch.nn.functional.cross_entropy(model(clip).logits, label).backward()

    return {"forward": forward, "forward and backward": backward}


def seconds(run: Run) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


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
    compute_in_kept_memory()  # as `python -m vivit_jax.main` does; torch then keeps its memory as well
    torch.manual_seed(0)
    found: dict[str, Any] = {}
    for title, (name, make) in PEERS.items():
        frames = vivit_jax.create_model(name, 400).config.num_frames
        video = np.random.default_rng(0).standard_normal((1, frames, 224, 224, 3)).astype(np.float32)
        our, their = ours(name, video), theirs(make, video)
        for what in our:
            times = in_turns({"vivit_jax": our[what], "transformers": their[what]}, rounds)
            ratio = sorted(b / a for a, b in zip(*times.values(), strict=True))
            found[f"{title}, {what}"] = {
                "median_seconds": {name: statistics.median(of) for name, of in times.items()},
                "times_faster": {"median": statistics.median(ratio), "lowest": ratio[0], "highest": ratio[-1]},
                "seconds": times,
            }
            print(title, what, json.dumps(found[f"{title}, {what}"]), flush=True)
    video = np.random.default_rng(0).standard_normal((1, 32, 224, 224, 3)).astype(np.float32)
    for what, run in ours("vivit_b16x2_fe", video).items():
        times = in_turns({"vivit_jax": run}, rounds)
        found[f"ViViT-B, factorized encoder, 32 frames, {what}"] = {
            "median_seconds": {"vivit_jax": statistics.median(times["vivit_jax"])},
            "seconds": times,
        }
    versions = {name: version(name) for name in ("torch", "transformers")} | {"torch_threads": torch.get_num_threads()}
    facts = {"machine": machine() | versions, "rounds": rounds, "results": found}
    (RESULTS / "against_peers.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
