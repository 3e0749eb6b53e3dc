"""Checkpoints of our own runs, as a source of weights."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from vivit_jax.architecture import ModelConfig, Preprocessing
from vivit_jax.checkpoints.conversion import Checkpoint, Which, believing
from vivit_jax.checkpoints.training import saved_steps
from vivit_jax.config import Config, from_dict
from vivit_jax.errors import UserError
from vivit_jax.files import read_json_lines
from vivit_jax.variants import preprocessing


def open_checkpoint(workdir: Path, which: Which) -> Checkpoint:
    """The parameters that the run would evaluate, of one of its steps.

    Raises:
      UserError: there is no such checkpoint, or it cannot be read.
    """
    config = from_dict(json.loads((workdir / "config.json").read_text(encoding="utf-8")))
    step = _step(workdir, which, next(iter(config.evaluation.splits), ""))
    folder = workdir / "checkpoints" / str(step)
    with believing(folder):
        classes = json.loads((folder / "data" / "metadata").read_text(encoding="utf-8"))["class_names"]
        params = _params(folder / "state")
    several = isinstance(classes, dict)
    labels = {head: tuple(names) for head, names in classes.items()} if several else tuple(classes)
    counts = {head: len(names) for head, names in classes.items()} if several else len(classes)
    model = config.model.architecture(counts)
    flat = {jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in jax.tree.leaves_with_path(params)}
    tensors = {name: lambda x=x: x for name, x in flat.items()}
    return Checkpoint(str(workdir), model, _preprocessing(config, model), labels, (), tensors)


def _preprocessing(config: Config, model: ModelConfig) -> Preprocessing:
    """What the run evaluates on."""
    data = config.data
    seen = dict(stride=data.stride, target_fps=data.target_fps, resize=data.eval_resize)
    seen |= dict(sampling=data.sampling, short_clips=data.short_clips)
    return replace(preprocessing(config.model.name, model), **seen)


def _params(path: Path) -> Any:
    """The averaged parameters where there are some; the optimizer's state is not read."""
    handler, folder = ocp.PyTreeCheckpointHandler(), epath.Path(path)
    tree = handler.metadata(folder).tree
    name = "ema" if "ema" in tree else "params"
    wanted = {name: jax.tree.map(lambda x: np.empty(x.shape, x.dtype), tree[name])}
    how = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
    return handler.restore(folder, args=ocp.args.PyTreeRestore(wanted, restore_args=how, partial_restore=True))[name]


def _step(workdir: Path, which: Which, split: str) -> int:
    steps = saved_steps(workdir)
    if not steps:
        raise UserError(f"{workdir}: holds no checkpoint yet")
    if which == "latest":
        return steps[-1]
    if which == "best":
        scores = {step: score for step, score in _scores(workdir, split).items() if step in steps}
        if not scores:
            raise UserError(f"{workdir}: none of its checkpoints ({', '.join(map(str, steps))}) was evaluated")
        return max(scores, key=lambda step: (scores[step], step))
    if which not in steps:
        raise UserError(f"{workdir}: has no checkpoint of step {which}; its steps are {', '.join(map(str, steps))}")
    return int(which)


def _scores(workdir: Path, split: str) -> dict[int, float]:
    """Top-1 of the split that is evaluated on the way, by step, of the log and of the final evaluation."""
    lines = read_json_lines(workdir / "log.jsonl")
    scores = {line["step"]: line[f"{split}/top_1"] for line in lines if f"{split}/top_1" in line}
    final = workdir / "metrics.json"
    if final.exists():
        values = json.loads(final.read_text(encoding="utf-8"))
        if split in values and "step" in values:  # else of a checkpoint that was evaluated here before
            scores[values["step"]] = values[split]["top_1"]
    return scores
