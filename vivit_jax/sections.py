"""The sections of a run's configuration: each frozen, typed, and checked on its own."""

import re
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

from vivit_jax.architecture import ModelConfig, Sampling, ShortClips
from vivit_jax.schema import check
from vivit_jax.variants import model_config


@dataclass(frozen=True)
class Model:
    """A named model and what it differs in."""

    name: str
    overrides: dict[str, Any]

    def __post_init__(self):
        self.architecture()

    def architecture(self, num_classes: int | dict[str, int] = 1) -> ModelConfig:
        """The architecture; `num_classes`, the dataset's, holds where the config does not say."""
        fields = dict(self.overrides)
        return model_config(self.name, fields.pop("num_classes", num_classes), **fields)


@dataclass(frozen=True)
class Data:
    """An ingested dataset, and which frames and pixels of its videos are seen."""

    name: str  # as it was ingested: mine, or ucf101/split_1
    data_dir: str = field(default="data", metadata={"resume": True})  # where datasets live
    generator: Literal["", "motion"] = ""  # renders and ingests the dataset where it does not exist yet
    train_split: str = "train"  # what is trained on
    sampling: Sampling = "strided"  # which frames a clip has
    stride: float = 2.0  # frames between two that are kept; 0: as target_fps says
    target_fps: float = 0.0  # kept frames per second of video, whatever its own rate
    short_clips: ShortClips = "loop"  # what follows the last frame of a video that is too short
    crop: Literal["resized", "jitter", "stretch"] = "resized"  # Inception's, at a random scale, at one for each side
    crop_area: tuple[float, float] = (0.3, 1.0)  # resized: part of the picture
    crop_aspect: tuple[float, float] = (0.75, 4 / 3)  # resized: width to height
    crop_short_side: tuple[float, float] = (256, 320)  # jitter, stretch: pixels of the whole short side
    eval_resize: int = 256  # pixels of the short side before the evaluation crop
    num_workers: int = field(default=0, metadata={"resume": True})  # decoding processes; 0: threads
    max_bad_fraction: float = field(default=0.01, metadata={"resume": True})  # of a split that may fail to decode

    def __post_init__(self):
        named = re.fullmatch(r"\w+(/\w+)?", self.name)
        check(self, "name", named, "name the dataset as it was ingested: mine, or ucf101/split_1")
        check(self, "stride", self.stride >= 0, "must not be negative")
        one = f"beside a target_fps of {self.target_fps:g}: set one of the two above 0, not both"
        check(self, "stride", (self.target_fps > 0) != (self.stride > 0), one)
        low, high = _pair(self, "crop_area")
        check(self, "crop_area", 0 < low <= high <= 1, "two parts of the picture, 0 < low <= high <= 1")
        low, high = _pair(self, "crop_aspect")
        check(self, "crop_aspect", 0 < low <= high, "two ratios of width to height, 0 < low <= high")
        low, high = _pair(self, "crop_short_side")
        check(self, "crop_short_side", 0 < low <= high, "two numbers of pixels, 0 < low <= high")
        check(self, "max_bad_fraction", 0 <= self.max_bad_fraction <= 1, "is a part, from 0 to 1")
        check(self, "num_workers", self.num_workers >= 0, "must not be negative")


@dataclass(frozen=True)
class Augment:
    """What happens to training clips on the device; the same for every frame of a clip."""

    flip: float | None = None  # probability; None: 0.5, or 0 where a class is called left or right
    jitter: float = 0.0  # probability of changing the colors, by at most:
    brightness: float = 32 / 255
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.2
    grayscale: float = 0.0  # probability
    randaugment: int = 0  # operations for each clip; 0: off
    magnitude: float = 10.0  # theirs; ViViT's recipes have 15 and 20
    erase: float = 0.0  # probability of filling a box with noise
    mixup: float = 0.0  # alpha of its Beta distribution; 0: off
    cutmix: float = 0.0  # the same; with both on, a coin decides for each batch

    def __post_init__(self):
        for name in ("randaugment", "magnitude", "mixup", "cutmix"):
            check(self, name, getattr(self, name) >= 0, "must not be negative")
        for name in ("flip", "jitter", "grayscale", "erase"):
            value = getattr(self, name)
            check(self, name, value is None or 0 <= value <= 1, "is a probability, from 0 to 1")
        for name in ("brightness", "contrast", "saturation", "hue"):
            check(self, name, 0 <= getattr(self, name) < 1, "must be at least 0 and below 1")


@dataclass(frozen=True)
class Optimizer:
    """SGD or AdamW."""

    name: Literal["sgd", "adamw"] = "sgd"
    momentum: float = 0.9  # of sgd
    momentum_dtype: Literal["float32", "bfloat16"] = "float32"  # of the first moment; half the bytes in bfloat16
    nesterov: bool = False  # of sgd
    b1: float = 0.9  # of adamw
    b2: float = 0.999  # of adamw
    clip_norm: float = 1.0  # of the global gradient; 0: off
    weight_decay: float = 0.0  # sgd: added to the gradient; adamw: apart from it
    no_decay: str = "bias|scale|cls|positions"  # regular expression: parameter paths that do not decay; "": none
    # of the learning rate, from a block to the one below it; 1: off; for what starts from other weights alone
    layer_decay: float = 1.0
    freeze: str = ""  # regular expression: parameter paths that stay as they are; "": none

    def __post_init__(self):
        check(self, "layer_decay", 0 < self.layer_decay <= 1, "must be above 0, and at most 1")
        for name in ("no_decay", "freeze"):
            check(self, name, _is_pattern(getattr(self, name)), "is not a regular expression")
        for name in ("momentum", "b1", "b2"):
            check(self, name, 0 <= getattr(self, name) < 1, "must be at least 0 and below 1")
        for name in ("clip_norm", "weight_decay"):
            check(self, name, getattr(self, name) >= 0, "must not be negative")


@dataclass(frozen=True)
class Schedule:
    """The learning rate: linear warm-up, then cosine to 0, steps down, or constant."""

    name: Literal["cosine", "step", "constant"] = "cosine"
    learning_rate: float = 0.1  # the highest
    warmup_epochs: float = 0.0  # linear, from 0; in a shorter run all steps but the last
    step_epochs: tuple[float, ...] = ()  # where `step` multiplies the rate by step_factor
    step_factor: float = 0.1

    def __post_init__(self):
        check(self, "learning_rate", self.learning_rate > 0, "must be above 0")
        check(self, "warmup_epochs", self.warmup_epochs >= 0, "must not be negative")
        check(self, "step_factor", self.step_factor > 0, "must be above 0")
        rising = all(epoch < following for epoch, following in pairwise((0.0, *self.step_epochs)))
        alone = (self.name == "step") == bool(self.step_epochs)
        check(self, "step_epochs", rising and alone, "must rise from above 0 with name 'step', and be () with others")


@dataclass(frozen=True)
class Train:
    """The course of training."""

    batch_size: int = 64  # over all devices and processes
    epochs: float = 30.0  # passes over the training split
    accumulate: int = 1  # parts that a batch is split into, to save memory
    label_smoothing: float = 0.0  # part of a label that all classes share
    ema: float = 0.0  # decay of the average of the parameters that is evaluated; 0: off
    log_every: int = field(default=50, metadata={"resume": True})  # steps
    eval_every_epochs: float = 0.0  # 0: at the end alone
    checkpoint_every: int = 1000  # steps
    keep: int = field(default=2, metadata={"resume": True})  # checkpoints

    def __post_init__(self):
        for name in ("batch_size", "accumulate", "log_every", "checkpoint_every", "keep"):
            check(self, name, getattr(self, name) >= 1, "must be at least 1")
        check(self, "epochs", self.epochs > 0, "must be above 0")
        check(self, "eval_every_epochs", self.eval_every_epochs >= 0, "must not be negative")
        check(
            self, "accumulate", self.batch_size % self.accumulate == 0, f"does not divide batch_size {self.batch_size}"
        )
        for name in ("label_smoothing", "ema"):
            check(self, name, 0 <= getattr(self, name) < 1, "must be at least 0 and below 1")


@dataclass(frozen=True)
class Mesh:
    """Devices along each axis of the mesh; -1 takes, in this order, what it can use of those that are left."""

    fsdp: int = 1  # examples, and parameters with their optimizer state
    data: int = -1  # examples
    context: int = -1  # the time steps of an example
    tensor: int = -1  # heads, and the hidden width of MLPs

    def __post_init__(self):
        check(self, "fsdp", self.fsdp >= 1, "must be at least 1")
        for name in ("data", "context", "tensor"):
            check(self, name, getattr(self, name) == -1 or getattr(self, name) >= 1, "must be at least 1, or -1")


def _is_pattern(text: str) -> bool:
    try:
        re.compile(text)
    except re.error:
        return False
    return True


def _pair(section, name: str) -> tuple[float, float]:
    value = getattr(section, name)
    check(section, name, len(value) == 2, "takes two numbers")
    return value
