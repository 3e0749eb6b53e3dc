"""What a configuration computes: a model, its optimizer and its step, laid out on a mesh; no data, no files."""

from dataclasses import dataclass
from typing import Any

import jax
import optax
from flax import nnx

from vivit_jax.architecture import ModelConfig, Preprocessing
from vivit_jax.checkpoints.training import abstract
from vivit_jax.config import Config
from vivit_jax.training.optimizer import make_optimizer, make_schedule
from vivit_jax.training.sharding import check_batch, make_mesh, state_sharding
from vivit_jax.training.step import jit_train_step, make_state, train_step_fn
from vivit_jax.variants import preprocessing


@dataclass(frozen=True)
class Program:
    """A configuration on devices that may be there or not."""

    config: Config
    mesh: jax.sharding.Mesh
    model: ModelConfig
    preprocessing: Preprocessing
    steps_per_epoch: float
    total_steps: int
    schedule: optax.Schedule
    optimizer: optax.GradientTransformation
    graph: nnx.GraphDef
    init: Any  # () -> State

    def abstract_state(self) -> Any:
        """The state's shapes and where it lies, of which nothing is computed."""
        shapes = jax.eval_shape(self.init)
        return abstract(shapes, state_sharding(self.mesh, shapes))

    def train_step(self) -> Any:
        """The jitted step: (state, batch) -> (state, metrics)."""
        step = train_step_fn(self.config, self.graph, self.preprocessing, self.optimizer, self.schedule)
        return jit_train_step(step, self.mesh, self.abstract_state())


def assemble(config: Config, model: ModelConfig, num_videos: int, devices: Any = None) -> Program:
    """The program that trains `model` on so many videos, on `devices` or all that there are.

    Raises:
      UserError: the mesh, or a batch on it, does not fit.
    """
    mesh = make_mesh(config.mesh, config.train.batch_size // config.train.accumulate, model, devices)
    check_batch(mesh, "train", config.train.batch_size, config.train.accumulate)
    check_batch(mesh, "evaluation", config.evaluation.batch_size)
    steps_per_epoch = num_videos / config.train.batch_size
    total_steps = max(1, round(config.train.epochs * steps_per_epoch))
    schedule = make_schedule(config.schedule, steps_per_epoch, total_steps)
    optimizer = make_optimizer(config.optimizer, schedule)
    feeding = preprocessing(config.model.name, model)
    state = make_state(config, model, feeding, optimizer)
    return Program(config, mesh, model, feeding, steps_per_epoch, total_steps, schedule, optimizer, *state)
