"""Seconds of forward and backward passes on CPUs with the memory that commands keep, beside those without.

    pip install -e ".[peers]" && python benchmarks/kept_memory.py [--rounds=10]

float32, one clip, random weights, each in a process of its own; the two take turns, and what is reported is the ratio
within each round. Page faults are the median of a round's, memory the peak of the process. results/kept_memory.json.
"""

import argparse
import json
import multiprocessing
import resource
import statistics
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
from against_peers import BACKWARD, WARM_UP, Run, ours, seconds
from train import RESULTS, machine, times_faster

import vivit_jax
from vivit_jax.memory import compute_in_kept_memory

MODELS = ("timesformer_b", "vivit_b16x2_fe")
RUNS: list[Run] = []  # of this process: one


def start(name: str, kept: bool) -> None:
    """Compiles it in a process of its own."""
    if kept:
        compute_in_kept_memory()
    frames = vivit_jax.create_model(name, 400).config.num_frames
    video = np.random.default_rng(0).standard_normal((1, frames, 224, 224, 3)).astype(np.float32)
    RUNS.append(ours(name, video)[BACKWARD])


def measured() -> tuple[float, int, float]:
    """Seconds, page faults, and GB of memory at most until now, of one run."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    took, use = seconds(RUNS[0]), resource.getrusage(resource.RUSAGE_SELF)
    return took, use.ru_minflt - before, use.ru_maxrss / 1e6


def compare(name: str, rounds: int) -> dict[str, Any]:
    context = multiprocessing.get_context("spawn")
    pools = {label: ProcessPoolExecutor(1, context, start, (name, label == "kept")) for label in ("kept", "given back")}
    found: dict[str, list[tuple[float, int, float]]] = {label: [] for label in pools}
    for _ in range(WARM_UP + rounds):
        for label, pool in pools.items():
            found[label].append(pool.submit(measured).result())
    for pool in pools.values():
        pool.shutdown()
    runs = {label: list(zip(*of[WARM_UP:], strict=True)) for label, of in found.items()}
    return {
        "median_seconds": {label: statistics.median(times) for label, (times, _, _) in runs.items()},
        "times_faster": times_faster(runs["kept"][0], runs["given back"][0]),
        "median_page_faults": {label: statistics.median(faults) for label, (_, faults, _) in runs.items()},
        "peak_gigabytes": {label: max(peaks) for label, (_, _, peaks) in runs.items()},
        "seconds": {label: times for label, (times, _, _) in runs.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    results = {name: compare(name, rounds) for name in MODELS}
    facts = {"machine": machine(), "rounds": rounds, "forward and backward": results}
    (RESULTS / "kept_memory.json").write_text(json.dumps(facts, indent=1) + "\n")
    print(json.dumps(results))


if __name__ == "__main__":
    main()
