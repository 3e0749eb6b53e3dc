"""The configuration of a run: frozen, typed, validated once, before anything is loaded."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ml_collections import ConfigDict

from vivit_jax.architecture import ModelConfig
from vivit_jax.errors import UserError
from vivit_jax.schema import build, check, defaults, placeholder
from vivit_jax.sections import Augment, Data, Mesh, Model, Optimizer, Schedule, Train
from vivit_jax.sections_evaluation import Evaluation, Probe


@dataclass(frozen=True)
class Config:
    """Everything a run is determined by."""

    model: Model
    data: Data
    seed: int = 0
    init_from: str = ""  # a checkpoint whose weights a new run starts from: anything that load_model reads
    init_keep: tuple[str, ...] = ("heads", "pre_logits")  # parts of parameter paths that stay new all the same
    augment: Augment = Augment()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    train: Train = Train()
    evaluation: Evaluation = field(default=Evaluation(), metadata={"resume": True})
    probe: Probe = field(default=Probe(), metadata={"resume": True})
    mesh: Mesh = field(default=Mesh(), metadata={"resume": True})

    def __post_init__(self):
        if not 0 <= self.seed < 2**63:  # what both NumPy and JAX take
            raise UserError(f"config.seed: {self.seed} must be from 0 to 2^63 - 1")
        views = self.data.sampling != "whole" or self.evaluation.clips == 1
        check(self.evaluation, "clips", views, "with config.data.sampling 'whole', which one clip has seen")
        located = self.data.sampling in ("strided", "span") or self.evaluation.starts == "even"
        check(self.evaluation, "starts", located, f"with config.data.sampling {self.data.sampling!r}, which has none")
        every = self.train.eval_every_epochs
        wanted = self.evaluation.splits or not every
        check(self.evaluation, "splits", wanted, f"is nothing to evaluate; config.train.eval_every_epochs is {every:g}")
        short_side = min(self.model.architecture().image_size)
        enough = self.data.crop == "resized" or self.data.crop_short_side[0] >= short_side
        check(self.data, "crop_short_side", enough, f"starts below the crop of {short_side} pixels")
        check(
            self.data, "eval_resize", self.data.eval_resize >= short_side, f"is below the crop of {short_side} pixels"
        )


def base() -> Any:
    """A ConfigDict of every key with its default; a field of the model that is unset is as its name has it."""
    config: Any = defaults(Config)
    fields = {field.name: placeholder(field.type) for field in dataclasses.fields(ModelConfig)}
    config.model = ConfigDict({"name": placeholder(str), **fields})
    return config


def from_dict(values: Mapping[str, Any]) -> Config:
    """The validated configuration of a ConfigDict or of a saved `config.json`.

    Raises:
      UserError: an unknown key or an impossible value; one line that names it.
    """
    values = dict(values)
    given = {key: value for key, value in dict(values.pop("model", {})).items() if value is not None}
    # JSON has no tuples.
    model = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
    return build(Config, values | {"model": {"name": model.pop("name", None), "overrides": model}})


def to_dict(config: Config) -> dict[str, Any]:
    """What `from_dict` reads, of plain Python values."""
    values = dataclasses.asdict(config)
    values["model"] = {"name": config.model.name, **config.model.overrides}
    return values
