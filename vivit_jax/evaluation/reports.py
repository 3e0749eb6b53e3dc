"""Files about every class of a split, for people."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np

from vivit_jax.architecture import Labels
from vivit_jax.errors import UserError
from vivit_jax.evaluation.scores import Scores, ranks
from vivit_jax.figures import new_figure, save
from vivit_jax.files import write_csv

MAX_NAMES = 50  # classes that a drawing names
MAX_COUNTS = 12  # classes of which it has numbers
COLUMNS = ("class", "videos", "top_1", "top_5", "said", "precision", "most_confused_with", "times")


def write_reports(workdir: Path, split: str, scores: Scores, class_names: Labels) -> list[Path]:
    """Writes `classes_SPLIT.csv` and `confusion_SPLIT.csv`, and with matplotlib `.png`; of several heads one for each.

    Returns:
      what was written.
    """
    averaged, written = scores.averaged(), []
    heads = class_names if isinstance(class_names, dict) else {"": class_names}
    for head, names in heads.items():
        found, labels = (x[head] if head else x for x in (averaged, scores.labels))
        name = f"{split}_{head}" if head else split
        matrix = confusion(found, labels)
        paths = [workdir / f"{kind}_{name}.{end}" for kind, end in (("classes", "csv"), ("confusion", "csv"))]
        write_csv(paths[0], [COLUMNS, *class_rows(found, labels, matrix, names)])
        rows = ([name, *map(int, row)] for name, row in zip(names, matrix, strict=True))
        write_csv(paths[1], [("label, and what was said", *names), *rows])
        drawn = paths[1].with_suffix(".png")
        written += [*paths, drawn] if draw(drawn, matrix, names) else paths
    return written


def confusion(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How many videos of each class (rows) were said to be of each class (columns): int [K, K]."""
    matrix = np.zeros((scores.shape[1],) * 2, np.int64)
    np.add.at(matrix, (labels, scores.argmax(1)), 1)
    return matrix


def class_rows(scores: np.ndarray, labels: np.ndarray, matrix: np.ndarray, names: tuple[str, ...]):
    """A row of COLUMNS for each class; where there is nothing to divide by it is empty."""
    rank = np.asarray(ranks(jnp.asarray(scores), jnp.asarray(labels)))
    for index, name in enumerate(names):
        videos, said, others = labels == index, int(matrix[:, index].sum()), np.array(matrix[index])
        others[index] = 0
        of = int(videos.sum())
        parts = [f"{np.mean(rank[videos] <= k):.4f}" for k in (1, 5)] if of else ["", ""]
        precision = f"{matrix[index, index] / said:.4f}" if said else ""
        worst = [names[int(others.argmax())], int(others.max())] if others.any() else ["", ""]
        yield [name, of, *parts, said, precision, *worst]


def draw(path: Path, matrix: np.ndarray, names: tuple[str, ...]) -> bool:
    """The matrix as parts of each row; False where matplotlib, the extra `plots`, is missing."""
    named = len(names) <= MAX_NAMES
    size = 4 + min(len(names), MAX_NAMES) / 5 + (0.08 * max(map(len, names)) if named else 0)  # inches
    try:
        figure = new_figure(size, size, "a confusion matrix")
    except UserError:
        return False
    axis = figure.subplots()
    picture = axis.imshow(matrix / np.maximum(matrix.sum(1, keepdims=True), 1), vmin=0, vmax=1, cmap="viridis")
    figure.colorbar(picture, label="part of the class", shrink=0.8)
    axis.set(xlabel="said", ylabel="class")
    if named:
        axis.set_xticks(range(len(names)), names, rotation=90)
        axis.set_yticks(range(len(names)), names)
    if len(names) <= MAX_COUNTS:
        for (row, column), count in np.ndenumerate(matrix):
            color = "black" if 2 * count > matrix[row].sum() else "white"
            axis.text(column, row, str(count), ha="center", va="center", color=color, fontsize="small")
    save(figure, path)
    return True
