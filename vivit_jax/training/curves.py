"""--mode=plot: loss and accuracy of a run, as its log has them."""

import json
from pathlib import Path
from typing import Any

from vivit_jax.errors import UserError, disk_space
from vivit_jax.figures import new_figure, save
from vivit_jax.files import read_json_lines

ACCURACIES = ("top_1", "top_5", "mean_class_accuracy")


def plot(workdir: Path) -> Path:
    """Draws `workdir/plot.png` from `log.jsonl` and, where the run has ended, `metrics.json`; returns its path.

    Raises:
      UserError: there is no log, or matplotlib, the extra `plots`, is missing.
    """
    figure, path = draw(read_curves(workdir), str(workdir)), workdir / "plot.png"
    with disk_space(lambda: f"--workdir: the disk is full at {workdir}; free some space and start again"):
        save(figure, path)
    return path


def draw(curves: dict[str, list[tuple[int, float]]], title: str) -> Any:
    """A matplotlib Figure: losses on the left, accuracies on the right."""
    figure = new_figure(12, 4.5, "--mode=plot")
    for axes, of, ylabel in zip(figure.subplots(1, 2), (is_loss, is_accuracy), ("loss", "accuracy"), strict=True):
        for name, points in curves.items():
            if of(name):
                few = len(points) < 50
                style = "--" if name.endswith(ACCURACIES[-1]) else "-"  # of classes of one size it is top-1
                axes.plot(*zip(*points, strict=True), style, label=name, marker="o" if few else "", markersize=3)
        if of is is_accuracy:
            _draw_chance(axes, curves)
        axes.set(xlabel="step", ylabel=ylabel)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize="small")
    figure.axes[0].set_ylim(bottom=0)
    figure.axes[1].set_ylim(0, 1.02)
    figure.suptitle(title, fontsize="small")
    return figure


def _draw_chance(axes: Any, curves: dict[str, list[tuple[int, float]]]) -> None:
    """What is right without looking: the part of the largest class, by split."""
    for name, points in curves.items():
        if name.split("/")[-1] == "majority_class":
            axes.axhline(points[-1][1], color="gray", linestyle=":", label=f"{name.split('/')[0]}: the largest class")


def is_loss(name: str) -> bool:
    return name.split("/")[-1] == "loss"


def is_accuracy(name: str) -> bool:
    return name.split("/")[-1] in ACCURACIES


def read_curves(workdir: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) by name, in the order of steps; the final evaluation is in metrics.json alone."""
    path, final = workdir / "log.jsonl", workdir / "metrics.json"
    if not path.exists():
        raise UserError(f"--workdir: {workdir} holds no log.jsonl; train a run there first")
    entries = read_json_lines(path)
    metrics = json.loads(final.read_text(encoding="utf-8")) if final.exists() else {}
    if "step" in metrics:  # else of a checkpoint that was evaluated here before
        splits = {split: values for split, values in metrics.items() if isinstance(values, dict)}
        flat = {f"{split}/{name}": value for split, values in splits.items() for name, value in values.items()}
        entries.append({"step": metrics["step"], **flat})
    curves: dict[str, dict[int, float]] = {}
    for entry in entries:
        for name, value in entry.items():
            if name != "step":
                curves.setdefault(name, {})[entry["step"]] = value
    if not any(is_loss(name) for name in curves):
        raise UserError(f"--workdir: {path} has no loss in it yet")
    return {name: sorted(points.items()) for name, points in curves.items()}
