"""The sections of what is done with a model that is not trained further: as sections.py has the others."""

from dataclasses import dataclass
from typing import Literal

from vivit_jax.schema import check


@dataclass(frozen=True)
class Evaluation:
    """Views of each video: clips spread over its length, times crops spread over its long side."""

    splits: tuple[str, ...] = ("validation",)  # what is evaluated; (): nothing
    batch_size: int = 16  # videos, over all devices and processes
    clips: int = 1  # of each video
    crops: int = 1  # of each clip
    # where clips start: spread evenly from end to end, a single one in the middle, as both papers say; or as either
    # release does it. A single clip of the released TimeSformer is the start of the video.
    starts: Literal["even", "vivit_release", "timesformer_release"] = "even"
    average: Literal["probabilities", "logits"] = "probabilities"  # over the views
    scores: Literal["views", "averaged"] = "views"  # what --mode=evaluate keeps of each video

    def __post_init__(self):
        for name in ("batch_size", "clips", "crops"):
            check(self, name, getattr(self, name) >= 1, "must be at least 1")


@dataclass(frozen=True)
class Probe:
    """Classifiers on features that stay as they are: logistic regression, and the nearest neighbors."""

    checkpoint: str = ""  # anything that load_model reads; "": the workdir's own run
    num_frames: int = 0  # 0: the checkpoint's; 8 for an image model, which sees frames one by one
    image_size: int = 0  # 0: the checkpoint's
    l2: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # of the loss: mean cross-entropy + l2 / 2 |kernel|^2
    holdout: float = 0.2  # part of every class of the training split that the strength is chosen on
    standardize: bool = True  # every feature to mean 0 and deviation 1
    neighbors: int = 20
    temperature: float = 0.07  # of their votes, exp(cosine / temperature)
    max_iterations: int = 1000  # of L-BFGS
    baseline: bool = False  # the same of random weights of the same architecture

    def __post_init__(self):
        check(self, "l2", self.l2 and all(value > 0 for value in self.l2), "takes numbers above 0, at least one")
        check(self, "holdout", 0 < self.holdout < 1, "is a part, above 0 and below 1")
        check(self, "temperature", self.temperature > 0, "must be above 0")
        for name in ("num_frames", "image_size"):
            check(self, name, getattr(self, name) >= 0, "must not be negative")
        for name in ("neighbors", "max_iterations"):
            check(self, name, getattr(self, name) >= 1, "must be at least 1")
