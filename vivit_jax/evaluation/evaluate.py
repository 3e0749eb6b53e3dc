"""--mode=evaluate: what a run, or any checkpoint with its own head, scores on a dataset."""

import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from vivit_jax.architecture import Labels
from vivit_jax.checkpoints.pretrained import load_model
from vivit_jax.compiled import keep_compiled
from vivit_jax.config import Config
from vivit_jax.data.datasets import VideoDataset
from vivit_jax.errors import UserError, disk_space
from vivit_jax.evaluation.features import fed_as, say
from vivit_jax.evaluation.multiview import Evaluator
from vivit_jax.evaluation.reports import write_reports
from vivit_jax.evaluation.scores import describe
from vivit_jax.files import make_folder, write_json
from vivit_jax.training.sharding import check_batch, make_mesh, state_sharding


def evaluate_splits(
    dataset: VideoDataset, workdir: Path, evaluator: Evaluator, params: Any, about: dict[str, Any], details: bool = True
) -> None:
    """Prints and writes `metrics.json`; with `details`, `scores_SPLIT.npz` and the files of `write_reports` as well."""
    results = dict(about)
    for split in evaluator.evaluation.splits:
        scores = evaluator.scores(params, dataset.source(split), split)
        results[split] = scores.metrics()
        if jax.process_index() == 0:
            print(describe(split, results[split]))
            if details:
                path = workdir / f"scores_{split}.npz"
                scores.save(path, dataset.class_names)
                written = [path, *write_reports(workdir, split, scores, dataset.class_names)]
                print(f"{workdir}: {', '.join(path.name for path in written)}")
    if jax.process_index() == 0:
        write_json(workdir / "metrics.json", results)


def evaluate_checkpoint(config: Config, source: str, workdir: Path) -> None:
    """Scores what `load_model` reads, with its own head, frames and pixels, on the dataset of `config`.

    Which frames and views it sees is the config's to say (`data`, `evaluation`), as in the papers' protocols.

    Raises:
      UserError: the checkpoint cannot be loaded, its classes are not the dataset's, or the workdir is not free.
    """
    if (workdir / "config.json").exists():
        raise UserError(f"--workdir: {workdir} holds a run; give --checkpoint another one to write to")
    dataset = VideoDataset(config.data.data_dir, config.data.name)
    for split in config.evaluation.splits:
        dataset.source(split)
    model = load_model(source)
    counts = dataset.num_classes if isinstance(dataset.num_classes, dict) else {"head": dataset.num_classes}
    if model.config.heads != counts:
        raise UserError(f"--checkpoint: {source} knows {model.config.heads} classes, {config.data.name!r} has {counts}")
    mesh = make_mesh(config.mesh, config.evaluation.batch_size, model.config)
    check_batch(mesh, "evaluation", config.evaluation.batch_size)
    make_folder(workdir, "--workdir")
    keep_compiled(workdir / "compiled")
    graph, state = nnx.split(model, nnx.Param)
    params = jax.tree.map(np.asarray, nnx.to_pure_dict(state))
    for head in params["heads"]:
        order = class_order(_of_head(model.labels, head), _of_head(dataset.class_names, head), source)
        params["heads"][head] = jax.tree.map(lambda x, order=order: x[..., order], params["heads"][head])
    params = jax.device_put(params, state_sharding(mesh, params))
    frames, stride = model.config.num_frames, model.preprocessing.stride
    say(f"{source}: {frames} frames, made for stride {stride:g}; config.data.stride is {config.data.stride:g}")
    evaluator = Evaluator(fed_as(config, model), graph, mesh, params, workdir)
    with disk_space(lambda: f"--workdir: the disk is full at {workdir}; free some space and start again"):
        evaluate_splits(dataset, workdir, evaluator, params, {"checkpoint": source})


def _of_head(names: Labels | None, head: str) -> tuple[str, ...] | None:
    return names.get(head) if isinstance(names, dict) else names


def class_order(theirs: tuple[str, ...] | None, ours: tuple[str, ...] | None, source: str) -> np.ndarray:
    """Where a checkpoint has the classes of a dataset: by name, or, with a line that says so, by number."""
    known, wanted = ([_plain(name) for name in names or ()] for names in (theirs, ours))
    if sorted(known) == sorted(wanted) and len(set(known)) == len(known):
        return np.asarray([known.index(name) for name in wanted])
    unknown = [name for name in wanted if name not in known]
    say(
        f"{source}: the classes are taken to be in the dataset's order, since {len(unknown)} of {len(wanted)} "
        f"names are not the checkpoint's ({unknown[0] if unknown else 'some are there twice'!r})"
    )
    return np.arange(len(wanted))


def _plain(name: str) -> str:
    """Releases differ in case, spaces, hyphens, quotes and underscores."""
    return re.sub(r"[^\w]|_", "", name.lower())
