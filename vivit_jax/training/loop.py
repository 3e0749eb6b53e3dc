"""Training, read from top to bottom."""

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from tqdm import tqdm

from vivit_jax.checkpoints.training import Checkpoints
from vivit_jax.compiled import keep_compiled
from vivit_jax.config import Config
from vivit_jax.data.pipeline import train_batches
from vivit_jax.errors import UserError, device_memory, disk_space
from vivit_jax.evaluation.evaluate import evaluate_splits
from vivit_jax.evaluation.multiview import Evaluator
from vivit_jax.evaluation.scores import describe
from vivit_jax.files import read_json_lines
from vivit_jax.progress import on_terminal
from vivit_jax.training.metrics import Log
from vivit_jax.training.preemption import Preempted, Preemption
from vivit_jax.training.reporter import Reporter
from vivit_jax.training.run import Run, claim, open_run
from vivit_jax.training.sharding import own_rows, to_devices
from vivit_jax.training.step import State


def train(config: Config, workdir: Path) -> None:
    """Trains to the end, from the last checkpoint of `workdir` that can be read, and evaluates.

    Asked to end by SIGTERM, it saves the step it is at and returns; started again, it goes on from there.

    Raises:
      UserError: what was asked for cannot be honored, the loss is not finite, or the disk is full.
    """
    run = open_run(config, workdir)
    claim(workdir, config)
    keep_compiled(workdir / "compiled")
    checkpoints = Checkpoints(workdir, config.train.keep)
    if run.total_steps == checkpoints.latest_step() == finished_at(workdir):
        checkpoints.close()
        print(f"{workdir} holds a finished run of {run.total_steps} steps; its results are in metrics.json")
        return
    kept = disk_space(checkpoints.full)
    with kept, device_memory(run.too_large), closing(checkpoints), closing(Preemption()) as preemption:
        start, state = run.resume(checkpoints)
        evaluator = Evaluator(config, run.graph, run.mesh, state["params"], workdir)
        log = Log(workdir, start) if jax.process_index() == 0 else None
        try:
            state = _train(run, state, start, checkpoints, log, evaluator, preemption)
            with preemption.idle():
                _evaluate(run, evaluator, state, details=False)
        except Preempted:
            checkpoints.wait()
            print(f"asked to end: {workdir} is saved at step {checkpoints.latest_step()}; start again to go on")
        finally:
            if log:
                log.close()


def _train(
    run: Run, state: State, start: int, checkpoints: Checkpoints, log: Log | None, evaluator, preemption
) -> State:
    train, total = run.config.train, run.total_steps
    evaluate_every = max(round(train.eval_every_epochs * run.steps_per_epoch), 1) if train.eval_every_epochs else 0
    step_fn, rows = run.train_step(), own_rows(run.mesh, train.batch_size)
    source = run.dataset.source(run.config.data.train_split)
    silent = jax.process_index() > 0 or not on_terminal()
    with tqdm(initial=start, total=total, desc="train", unit=" steps", disable=silent) as progress:
        if evaluate_every and 0 < start < total and start % evaluate_every == 0 and _missed(run, start):
            with preemption.idle():  # it was to end then
                _evaluate_on_the_way(run, state, start, log, evaluator, progress)
        reporter = Reporter(run, checkpoints, log, progress, start)
        for done, batch in enumerate(train_batches(source, run.config, start, total, rows), start + 1):
            state, metrics = step_fn(state, to_devices(reporter.dropped.note(batch), run.mesh, train.batch_size))
            # The device works on this step while the numbers of the last one are read.
            reporter.push(done, metrics)
            ends = preemption.after(done)
            if done % train.checkpoint_every == 0 or done == total or ends:
                reporter.flush()  # only a state whose loss was finite is saved
                checkpoints.save(done, state, run.data())
            if ends and done < total:
                raise Preempted
            if evaluate_every and done % evaluate_every == 0 and done < total:
                reporter.flush()
                try:
                    with preemption.idle():
                        _evaluate_on_the_way(run, state, done, log, evaluator, progress)
                except Preempted:
                    checkpoints.save(done, state, run.data())
                    raise
                reporter.restart_clock(done)
    return state


def _evaluate_on_the_way(run: Run, state: State, step: int, log: Log | None, evaluator, progress: tqdm) -> None:
    split = run.config.evaluation.splits[0]
    result = evaluator(averaged(state), run.dataset.source(split), split)
    progress.write(f"step {step}, {describe(split, result)}")
    if log:
        log.write(step, result, split)


def _missed(run: Run, step: int) -> bool:
    """Whether the evaluation of a step is not in the log, which the first process has."""
    name = f"{run.config.evaluation.splits[0]}/"
    lines = [line for line in read_json_lines(run.workdir / "log.jsonl") if line["step"] == step]
    there = any(key.startswith(name) for line in lines for key in line)
    return not multihost_utils.broadcast_one_to_all(np.asarray(there))


def finished_at(workdir: Path) -> int | None:
    """The step that `metrics.json` speaks of."""
    path = workdir / "metrics.json"
    return json.loads(path.read_text(encoding="utf-8")).get("step") if path.exists() else None


def averaged(state: State) -> Any:
    """The parameters to evaluate."""
    return state.get("ema", state["params"])


def evaluate(config: Config, workdir: Path) -> None:
    """Scores the latest checkpoint of `workdir`; writes `metrics.json`, what it said of every video, and more by class.

    Raises:
      UserError: there is no checkpoint, or it is of another configuration.
    """
    run = open_run(config, workdir)
    if not (workdir / "config.json").exists():
        raise UserError(f"--workdir: {workdir} holds no run; train one first")
    claim(workdir, config)
    keep_compiled(workdir / "compiled")
    checkpoints = Checkpoints(workdir, config.train.keep)
    if checkpoints.latest_step() is None:
        raise UserError(f"--workdir: {workdir} holds no checkpoint yet")
    _, state = run.resume(checkpoints)
    checkpoints.close()
    with disk_space(checkpoints.full):
        _evaluate(run, Evaluator(config, run.graph, run.mesh, state["params"], workdir), state, details=True)


def _evaluate(run: Run, evaluator: Evaluator, state: State, details: bool) -> None:
    about = {"step": int(state["step"])}
    evaluate_splits(run.dataset, run.workdir, evaluator, averaged(state), about, details)
