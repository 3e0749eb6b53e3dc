"""python benchmarks/augmentation.py [--rounds=N]: what augmentation on the device costs, beside a training step.

One clip of 32 x 224 x 224 on this machine's processor: each recipe's augmentation alone (jitted, uint8 to float), and a
training step of ViViT-B/16x2 FE, the cheapest of the B models to train, that augments nothing. They take turns. Writes
`benchmarks/results/augmentation.json`.
"""

import argparse
import json
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from train import RESULTS, machine

from vivit_jax.config import base, from_dict
from vivit_jax.data.augment import augment_batch
from vivit_jax.sections import Augment
from vivit_jax.training.optimizer import make_optimizer, make_schedule
from vivit_jax.training.step import make_state, train_step_fn
from vivit_jax.variants import preprocessing

CLASSES = 400
RECIPES = {
    "Kinetics: flip, color jitter, gray": Augment(flip=0.5, jitter=0.8, grayscale=0.1),
    "Something-Something v2: RandAugment 2 x 20, mixup": Augment(flip=0.0, randaugment=2, magnitude=20.0, mixup=0.3),
    "Epic-Kitchens: flip, RandAugment 2 x 15, mixup": Augment(flip=0.5, randaugment=2, magnitude=15.0, mixup=0.1),
    "everything at once": Augment(
        flip=0.5, jitter=0.8, grayscale=0.1, randaugment=2, magnitude=15.0, mixup=0.3, cutmix=1.0, erase=0.25
    ),
}


def make_step() -> tuple[Any, Any]:
    """A jitted training step and its state."""
    values = base()
    values.model.update(name="vivit_b16x2_fe", num_classes=CLASSES)
    values.data.name = "none"
    values.augment.flip = 0.0
    config = from_dict(values)
    model = config.model.architecture()
    feeding = preprocessing(config.model.name, model)
    schedule = make_schedule(config.schedule, 100.0, 1000)
    optimizer = make_optimizer(config.optimizer, schedule)
    graph, init = make_state(config, model, feeding, optimizer)
    step = jax.jit(train_step_fn(config, graph, feeding, optimizer, schedule), donate_argnums=0)
    return step, jax.jit(init)()


def measure(rounds: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    batch = {
        "video": jnp.asarray(rng.integers(0, 256, (1, 32, 224, 224, 3), np.uint8)),
        "label": jnp.zeros(1, jnp.int32),
        "weight": jnp.ones(1),
        "fault": jnp.zeros(1, jnp.int32),
    }
    step, state = make_step()
    augment = jax.jit(augment_batch, static_argnums=(2, 3))
    state, _ = jax.block_until_ready(step(state, batch))
    seconds: dict[str, list[float]] = {name: [] for name in ("training step", *RECIPES)}
    for number in range(rounds + 1):  # the first compiles
        start = time.perf_counter()
        state, _ = jax.block_until_ready(step(state, batch))
        seconds["training step"].append(time.perf_counter() - start)
        for name, recipe in RECIPES.items():
            start = time.perf_counter()
            jax.block_until_ready(augment(batch, jax.random.key(number), recipe, CLASSES))
            seconds[name].append(time.perf_counter() - start)
    seconds = {name: values[1:] for name, values in seconds.items()}
    parts = {
        name: [a / b for a, b in zip(values, seconds["training step"], strict=True)] for name, values in seconds.items()
    }
    return {
        name: {"seconds": _quartiles(values), "of_a_training_step": _quartiles(parts[name])}
        for name, values in seconds.items()
    }


def _quartiles(values: list[float]) -> list[float]:
    return [round(x, 4) for x in statistics.quantiles(values, n=4)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    results = measure(rounds)
    report = {"machine": machine(), "rounds": rounds, "quartiles": results}
    (RESULTS / "augmentation.json").write_text(json.dumps(report, indent=2) + "\n")
    for name, values in results.items():
        low, middle, high = values["of_a_training_step"]
        print(f"{name}: {values['seconds'][1]:.3f} s, {middle:.3f} ({low:.3f}-{high:.3f}) of a training step")


if __name__ == "__main__":
    main()
