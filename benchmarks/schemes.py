"""python benchmarks/schemes.py [--keep=DIR]: the papers' comparison of attention schemes, small, on the demo videos.

Trains every scheme of both papers at an equal budget from three seeds, and writes `benchmarks/results/schemes.json`
(metrics as they came out, versions, machine) and `schemes.png` (accuracy against multiply-adds). Prints the table.
What is given to all: tubelets of 2 frames and 12 x 12 pixels, a width of 96, 3 layers, Xavier initialization, and no
stochastic depth; positions, GELU and pooling stay as each paper has them.
"""

import argparse
import json
import re
import statistics
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
from train import RESULTS, machine, train

from vivit_jax.config import from_dict
from vivit_jax.summary import cost

SEEDS = (0, 1, 2)
SHARED = {
    "config": "configs/demo.py",
    "config.model.tubelet_size": 2,
    "config.model.patch_size": 12,
    "config.model.initializer": "xavier",
    "config.model.stochastic_depth": 0.0,
    "config.train.eval_every_epochs": 0.0,
}
# Scheme -> model, overrides, the paper's top-1 (TimeSformer table 1: K400 / SSv2; ViViT table 2: K400 / Epic-Kitchens).
SCHEMES: dict[str, tuple[str, dict[str, object], str]] = {
    "space": ("timesformer_b_space", {}, "76.9 / 36.6"),
    "time": ("timesformer_b_time", {}, ""),
    "joint": ("timesformer_b_joint", {}, "77.4 / 58.5"),
    "divided, time then space": ("timesformer_b", {}, "78.0 / 59.5"),
    "divided, space then time": ("timesformer_b", {"attention": "divided_space_time"}, "0.5 below T, S on K400"),
    "divided, parallel": ("timesformer_b", {"attention": "divided_parallel"}, "0.4 below T, S on K400"),
    "local-global": ("timesformer_b_local_global", {}, "75.9 / 56.3"),
    "axial": ("timesformer_b_axial", {}, "73.5 / 56.2"),
    "ViViT 1, spatio-temporal": ("vivit_ti16x2", {}, "80.0 / 43.1"),
    "ViViT 2, factorized encoder": ("vivit_ti16x2_fe", {"temporal_layers": 1}, "78.8 / 43.7"),
    "ViViT 3, factorized self-attention": ("vivit_ti16x2_fsa", {}, "77.4 / 39.1"),
    "ViViT 4, factorized dot-product": ("vivit_ti16x2_fdpa", {}, "76.3 / 39.5"),
}


def compare(root: Path) -> dict[str, dict]:
    """Trains whatever `root` does not hold yet."""
    results = {}
    for scheme, (name, overrides, paper) in SCHEMES.items():
        changes = SHARED | {"config.model.name": name} | {f"config.model.{k}": v for k, v in overrides.items()}
        flags = [f"--{key}={value}" for key, value in changes.items()]
        folder = root / re.sub(r"\W+", "_", scheme)
        runs = [train([*flags, f"--config.seed={seed}"], folder / str(seed)) for seed in SEEDS]
        runs = [{"flags": run["flags"], "metrics": run["metrics"], "last_step": last(run["log"])} for run in runs]
        config = from_dict(json.loads((folder / str(SEEDS[0]) / "config.json").read_text()))
        parameters, multiply_adds = cost(config.model.architecture(8))
        results[scheme] = {"paper": paper, "parameters": parameters, "multiply_adds": multiply_adds, "runs": runs}
    return results


def last(log: list[dict]) -> dict:
    """The last step's numbers but its speed: a comparison of accuracy may share its machine."""
    return {name: value for name, value in log[-1].items() if name != "train/clips_per_second"}


def top_1(result: dict) -> list[float]:
    return [run["metrics"]["validation"]["top_1"] for run in result["runs"]]


def table(results: dict[str, dict]) -> str:
    lines = [
        f"| scheme | parameters | multiply-adds | top-1, mean (lowest-highest) of {len(SEEDS)} seeds | the paper's |",
        "|---|---|---|---|---|",
    ]
    for scheme, result in results.items():
        scores = top_1(result)
        lines.append(
            f"| {scheme} | {result['parameters'] / 1e3:.0f}k | {result['multiply_adds'] / 1e6:.1f}M "
            f"| {statistics.mean(scores):.3f} ({min(scores):.3f}-{max(scores):.3f}) | {result['paper']} |"
        )
    return "\n".join(lines)


def plot(results: dict[str, dict], path: Path) -> None:
    figure, axes = plt.subplots(figsize=(9, 5))
    for index, (scheme, result) in enumerate(results.items()):
        scores, adds = top_1(result), result["multiply_adds"] / 1e6
        mean = statistics.mean(scores)
        spread = [[mean - min(scores)], [max(scores) - mean]]
        marker = "s" if scheme.startswith("ViViT") else "o"
        axes.errorbar(adds, mean, spread, fmt=marker, color=f"C{index % 10}", capsize=3, label=scheme)
    chance = max(run["metrics"]["validation"]["majority_class"] for r in results.values() for run in r["runs"])
    axes.axhline(chance, color="gray", linestyle=":", label="always the largest class")
    axes.set(
        xlabel="10^6 multiply-adds per view", ylabel="validation top-1: mean, lowest and highest seed", ylim=(0, 1.02)
    )
    axes.legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1, 0.5))
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, help="where the runs stay, to go on after an interruption")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        results = compare(arguments.keep or Path(temporary))
    RESULTS.mkdir(exist_ok=True)
    plot(results, RESULTS / "schemes.png")
    (RESULTS / "schemes.json").write_text(json.dumps({"machine": machine(), "schemes": results}, indent=1) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
