"""What training and evaluation both start from: a dataset, a mesh, a model, and a workdir that belongs to them."""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from vivit_jax.architecture import Labels
from vivit_jax.checkpoints.initialize import initial_params
from vivit_jax.checkpoints.parameters import paths
from vivit_jax.checkpoints.training import Checkpoints, saved_steps
from vivit_jax.config import Config, from_dict, to_dict
from vivit_jax.data.datasets import VideoDataset
from vivit_jax.errors import UserError, disk_space
from vivit_jax.files import make_folder, write_json
from vivit_jax.schema import differences
from vivit_jax.sections import Augment
from vivit_jax.training.optimizer import named, path_name
from vivit_jax.training.program import Program, assemble
from vivit_jax.training.sharding import state_sharding
from vivit_jax.training.step import State


@dataclass(frozen=True)
class Run(Program):
    """A program put to work on a dataset and the devices that are there, in a workdir of its own."""

    workdir: Path
    dataset: VideoDataset
    weights: dict[str, Any]  # what a new run takes over from config.init_from, by path

    def data(self) -> dict[str, Any]:
        """What the batches are a function of, beside the configuration: kept with each checkpoint."""
        data = self.config.data
        return {"videos": len(self.dataset.source(data.train_split)), "class_names": as_lists(self.dataset.class_names)}

    def new_state(self) -> State:
        """Initialized, and started from `config.init_from` where there is one."""
        shardings = state_sharding(self.mesh, jax.eval_shape(self.init))
        state = jax.jit(self.init, out_shardings=shardings)()
        if not self.config.init_from:
            return state
        total, taken = len(paths(state["params"])), len(self.weights)

        def start(path, initial):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            return jax.device_put(self.weights.pop(name), initial.sharding) if name in self.weights else initial

        params = jax.tree.map_with_path(start, state["params"])
        print(f"{taken} of {total} parameters start from {self.config.init_from}, the others new")
        return state | {"params": params} | ({"ema": jax.tree.map(jnp.copy, params)} if "ema" in state else {})

    def resume(self, checkpoints: Checkpoints) -> tuple[int, State]:
        """The step and state of the last checkpoint that can be read, or 0 and a new state where there is none.

        Raises:
          UserError: the dataset is not the one that the run was started on, or no checkpoint can be read.
        """
        if checkpoints.latest_step() is None:
            return 0, self.new_state()
        step, state, data = checkpoints.restore_latest(self.abstract_state())
        if data != self.data():
            raise UserError(
                f"config.data.name: {self.config.data.name!r} has changed since {self.workdir} was started "
                f"({data['videos']} training videos then, {self.data()['videos']} now); start another workdir"
            )
        return step, state

    def too_large(self) -> str:
        """What to say when memory does not suffice for a step."""
        train = self.config.train
        return (
            f"config.train.batch_size: memory does not suffice for a step of {train.batch_size} clips (devices: "
            f"{self.mesh.size}); in another --workdir, set config.train.accumulate above {train.accumulate} for "
            "parts one after another, config.model.remat=full, or a smaller batch"
        )


def open_run(config: Config, workdir: Path) -> Run:
    """Checks that everything fits together before anything is computed.

    Raises:
      UserError: the dataset or one of its splits is not there, or a number of classes, batch or mesh does not fit.
    """
    dataset = VideoDataset(config.data.data_dir, config.data.name)
    for split in config.evaluation.splits:
        dataset.source(split)
    model = config.model.architecture(dataset.num_classes)
    heads = dataset.num_classes if isinstance(dataset.num_classes, dict) else {"head": dataset.num_classes}
    if model.heads != heads:
        raise UserError(
            f"config.model.num_classes: {_counts(model.heads)}, but {config.data.name!r} has {_counts(heads)}"
        )
    config = replace(config, augment=replace(config.augment, flip=flip_probability(config.augment, dataset)))
    config = replace(config, optimizer=replace(config.optimizer, layer_decay=layer_decay(config)))
    program = assemble(config, model, len(dataset.source(config.data.train_split)))
    check_frozen(config.optimizer.freeze, jax.eval_shape(program.init)["params"])
    weights = _weights(program) if config.init_from and not saved_steps(workdir) else {}
    return Run(**vars(program), workdir=workdir, dataset=dataset, weights=weights)


def _counts(heads: dict[str, int]) -> str:
    return ", ".join(f"{n}" if head == "head" else f"{head} {n}" for head, n in sorted(heads.items()))


def as_lists(names: Labels) -> Any:
    """As JSON has them."""
    return {head: list(of) for head, of in names.items()} if isinstance(names, dict) else list(names)


def flip_probability(augment: Augment, dataset: VideoDataset) -> float:
    """Where it is not set: a half, unless a mirrored video would be of another class."""
    if augment.flip is not None:
        return augment.flip
    names = dataset.class_names
    names = [name for of in names.values() for name in of] if isinstance(names, dict) else names
    apart = [re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name).lower() for name in names]  # TurnLeft: turn left
    words = (re.search(r"(?<![a-z])(left|right)(?![a-z])", name) for name in apart)
    sided = [name for name, found in zip(names, words, strict=True) if found]
    if sided and jax.process_index() == 0:
        print(f"No clip is flipped: {len(sided)} classes speak of left or right ({sided[0]!r}); config.augment.flip")
    return 0.0 if sided else 0.5


def layer_decay(config: Config) -> float:
    """Off where all weights are new: a deep layer would wait for shallow ones that hardly learn."""
    decay = config.optimizer.layer_decay
    if config.init_from or decay == 1:
        return decay
    if jax.process_index() == 0:
        print(f"All layers learn alike: config.optimizer.layer_decay {decay:g} is for what config.init_from has begun")
    return 1.0


def check_frozen(pattern: str, params: Any) -> None:
    """Raises UserError where `config.optimizer.freeze` names no parameter, or all of them."""
    stay = [(path_name(path), stays) for path, stays in jax.tree.leaves_with_path(named(pattern, params))]
    names = [name for name, stays in stay if stays]
    if pattern and not names:
        raise UserError(f"config.optimizer.freeze: {pattern!r} names no parameter; they are called as {stay[-1][0]} is")
    if len(names) == len(stay):
        raise UserError(f"config.optimizer.freeze: {pattern!r} names every parameter; nothing would be trained")
    if names and jax.process_index() == 0:
        print(f"{len(names)} of {len(stay)} parameters are frozen")


def _weights(program: Program) -> dict[str, Any]:
    config = program.config
    shapes = {path: x.shape for path, x in paths(jax.eval_shape(program.init)["params"]).items()}
    return initial_params(config.init_from, program.model, program.preprocessing, shapes, config.init_keep)


def claim(workdir: Path, config: Config) -> None:
    """Writes `config.json` into a new workdir; in one that has one, it has to say the same.

    Raises:
      UserError: the workdir belongs to another configuration; the message lists the differences.
    """
    path = workdir / "config.json"
    if path.exists():
        changed = differences(from_dict(json.loads(path.read_text(encoding="utf-8"))), config)
        if changed:
            raise UserError(f"{workdir}: was started with another configuration ({'; '.join(changed)})")
    if jax.process_index() == 0:
        make_folder(workdir, "--workdir")
        if not path.exists():
            with disk_space(lambda: f"--workdir: the disk is full at {workdir}; free some space and start again"):
                write_json(path, to_dict(config))
