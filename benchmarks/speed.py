"""Draws what cycles.py and against_peers.py found: results/speed.png.

python benchmarks/speed.py
"""

import json

import matplotlib.pyplot as plt
from train import RESULTS

NAMES = {
    "vivit_b16x2_fe": "ViViT-B, factorized encoder",
    "vivit_b16x2_fsa": "ViViT-B, factorized self-attention",
    "vivit_b16x2_fdpa": "ViViT-B, factorized dot-product",
    "vivit_b16x2": "ViViT-B, spatio-temporal",
    "timesformer_b": "TimeSformer-B, divided, 8 frames",
}


def draw_estimates(axis, steps: dict[str, dict]) -> None:
    """Cycles per clip on v5e beside Scenic's, where it has the model."""
    for row, name in enumerate(reversed(NAMES)):
        ours, theirs = steps[f"{name} on v5e"], steps.get(f"Scenic's {name} on v5e, in one piece")
        axis.barh(row - 0.2, ours["estimated_cycles_per_clip"] / 1e6, 0.4, color="C0", label="vivit_jax")
        if theirs:
            axis.barh(row + 0.2, theirs["estimated_cycles_per_clip"] / 1e6, 0.4, color="C7", label="Scenic's modules")
    axis.set_yticks(range(len(NAMES)), list(reversed(NAMES.values())))
    axis.set(title="TPU v5e, training step: compiler's estimate", xlabel="10^6 cycles per clip")
    handles = dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    axis.legend(handles.values(), handles.keys())


def draw_ratios(axis, results: dict[str, dict]) -> None:
    """Times as fast as each peer on a CPU: median, lowest and highest round."""
    rows = [
        (f"{name} ({peer})", ratio) for name, found in results.items() for peer, ratio in found["times_faster"].items()
    ]
    for row, (_, ratio) in enumerate(reversed(rows)):
        spread = [[ratio["median"] - ratio["lowest"]], [ratio["highest"] - ratio["median"]]]
        axis.barh(row, ratio["median"], 0.5, xerr=spread, capsize=3, color="C0")
    axis.axvline(1, color="gray", linestyle=":")
    axis.set_yticks(range(len(rows)), [name.replace(", forward", "\nforward") for name, _ in reversed(rows)])
    axis.set(title="CPU, float32, one clip: measured", xlabel="times as fast as transformers or Scenic")


def main() -> None:
    cycles, peers = (json.loads((RESULTS / f"{name}.json").read_text()) for name in ("cycles", "against_peers"))
    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 3.8), layout="constrained")
    draw_estimates(left, cycles["steps"])
    draw_ratios(right, peers["results"])
    figure.savefig(RESULTS / "speed.png", dpi=110)


if __name__ == "__main__":
    main()
