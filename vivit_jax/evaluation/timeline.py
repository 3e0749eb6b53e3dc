"""A picture of a long video's scores over time."""

from pathlib import Path

import numpy as np

from vivit_jax.architecture import Labels
from vivit_jax.evaluation.predict import Prediction, class_names, spoken
from vivit_jax.figures import new_figure, save


def draw_timeline(prediction: Prediction, labels: Labels | None, top_k: int, path: Path) -> None:
    """The classes that score highest in any window, `top_k` of them, at the middles of the windows; a panel per head.

    Raises:
      UserError: matplotlib, the extra `plots`, is missing.
    """
    figure = new_figure(10, 3.2 * len(prediction.scores), "a timeline")
    starts, ends, scores = zip(*prediction.windows, strict=True)
    middles = (np.array(starts) + np.array(ends)) / 2
    panels = figure.subplots(len(prediction.scores), squeeze=False, sharex=True)[:, 0]
    for axes, head in zip(panels, prediction.scores, strict=True):
        over_time = np.stack([of[head] for of in scores])  # [windows, K]
        names = class_names(labels, head, over_time.shape[1])
        for index in np.argsort(-over_time.max(0), kind="stable")[:top_k].tolist():
            axes.plot(middles, over_time[:, index], marker=".", label=spoken(names[index]))
        axes.set(ylabel="probability" if head == "head" else f"probability of {head}", ylim=(0, 1.02))
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize="small")
    panels[0].set_title(prediction.video, fontsize="small")
    panels[-1].set(xlabel="seconds", xlim=(starts[0], ends[-1]))
    save(figure, path)
