"""--mode=inspect: a picture of what the model is really trained on."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from vivit_jax.architecture import Labels
from vivit_jax.config import Config
from vivit_jax.data.augment import augment_batch
from vivit_jax.data.decode import FAULTS
from vivit_jax.data.pipeline import train_batches
from vivit_jax.errors import disk_space
from vivit_jax.figures import new_figure, save
from vivit_jax.training.run import open_run
from vivit_jax.training.step import step_keys

MAX_CLIPS, MAX_FRAMES = 8, 8


def inspect(config: Config, workdir: Path) -> None:
    """Writes `workdir/inspect.png`: clips of the first training batch as they reach the model, with their labels.

    Raises:
      UserError: there is no dataset, or matplotlib, the extra `plots`, is missing.
    """
    run = open_run(config, workdir)
    source = run.dataset.source(run.config.data.train_split)
    batch = next(iter(train_batches(source, run.config, 0, 1)))
    key, _ = step_keys(run.config.seed, 0)
    augment, classes = run.config.augment, run.dataset.num_classes
    video, targets = jax.jit(lambda batch, key: augment_batch(batch, key, augment, classes))(batch, key)
    titles = [
        _title(jax.tree.map(lambda x, i=i: np.asarray(x[i]), targets), run.dataset.class_names, int(batch["fault"][i]))
        for i in range(min(len(video), MAX_CLIPS))
    ]
    path = workdir / "inspect.png"
    with disk_space(lambda: f"--workdir: the disk is full at {workdir}; free some space and start again"):
        workdir.mkdir(parents=True, exist_ok=True)
        _draw(np.asarray(video[: len(titles)]), titles, path)
    print(f"{len(titles)} clips of the first batch of {len(video)} -> {path}")


def _title(target: Any, names: Labels, fault: int) -> str:
    """A label, or the parts of a mixed one, largest first; a line for each head."""
    if fault:
        return f"dropped: {list(FAULTS.values())[fault - 1]}"
    if isinstance(names, dict):
        return "\n".join(f"{head}: {_title(target[head], names[head], 0)}" for head in names)
    if target.ndim == 0:
        return names[int(target)]
    order = [index for index in np.argsort(-target) if target[index] > 0.005]
    return " + ".join(f"{target[index]:.2f} {names[index]}" for index in order)


def _draw(video: np.ndarray, titles: list[str], path: Path) -> None:
    shown = np.linspace(0, video.shape[1] - 1, min(video.shape[1], MAX_FRAMES)).round().astype(int)
    figure = new_figure(1.6 * len(shown), 1.9 * len(titles), "--mode=inspect")
    axes = figure.subplots(len(titles), len(shown), squeeze=False)
    for row, clip, title in zip(axes, video, titles, strict=True):
        for axis, frame in zip(row, shown, strict=True):
            axis.imshow(np.clip(clip[frame], 0, 1), interpolation="nearest")
            axis.set_axis_off()
        row[0].set_title(title, loc="left", fontsize=9)
    save(figure, path)
