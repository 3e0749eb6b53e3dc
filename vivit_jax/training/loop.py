"""Training, read from top to bottom."""

import json
import math
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

from vivit_jax.checkpoints.training import Checkpoints
from vivit_jax.compiled import keep_compiled
from vivit_jax.config import Config
from vivit_jax.data.pipeline import train_batches
from vivit_jax.errors import UserError, device_memory, disk_space
from vivit_jax.evaluation.evaluate import evaluate_splits
from vivit_jax.evaluation.multiview import Evaluator
from vivit_jax.evaluation.scores import describe
from vivit_jax.progress import on_terminal
from vivit_jax.training.dropped import Dropped
from vivit_jax.training.metrics import Log
from vivit_jax.training.preemption import Preempted, Preemption
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
    evaluate_every = round(train.eval_every_epochs * run.steps_per_epoch)
    step_fn, rows = run.train_step(), own_rows(run.mesh, train.batch_size)
    source = run.dataset.source(run.config.data.train_split)
    silent = jax.process_index() > 0 or not on_terminal()
    with tqdm(initial=start, total=total, desc="train", unit=" steps", disable=silent) as progress:
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


def finished_at(workdir: Path) -> int | None:
    """The step that `metrics.json` speaks of."""
    path = workdir / "metrics.json"
    return json.loads(path.read_text(encoding="utf-8")).get("step") if path.exists() else None


def averaged(state: State) -> Any:
    """The parameters to evaluate."""
    return state.get("ema", state["params"])


class Reporter:
    """Reads each step's metrics one step late, checks them, and logs every so often."""

    def __init__(self, run: Run, checkpoints: Checkpoints, log: Log | None, progress: tqdm, start: int):
        self.run, self.checkpoints, self.log, self.progress = run, checkpoints, log, progress
        self.waiting: tuple[int, dict[str, jax.Array]] | None = None
        self.since, self.clock = start, time.perf_counter()
        data = run.config.data
        self.dropped = Dropped(run.dataset.source(data.train_split), data.max_bad_fraction, run.workdir, "train")

    def push(self, step: int, metrics: dict[str, jax.Array]) -> None:
        self.flush()
        self.waiting = step, metrics

    def flush(self) -> None:
        """Raises UserError where the loss or the gradient is not finite, or too many clips could not be read."""
        if self.waiting is None:
            return
        step, found = self.waiting[0], jax.device_get(self.waiting[1])
        self.waiting = None
        if int((step - 1) // self.run.steps_per_epoch) != int((step - 2) // self.run.steps_per_epoch):
            self.dropped.start_over()
        self.dropped.add(found.pop("dropped"))
        metrics = {name: float(value) for name, value in found.items()}
        self.progress.update()
        if not math.isfinite(metrics["loss"]) or not math.isfinite(metrics["grad_norm"]):
            self.checkpoints.wait()
            good = self.checkpoints.latest_step()
            raise UserError(
                f"step {step}: the loss is {metrics['loss']:g} and its gradient {metrics['grad_norm']:g}; "
                + (f"the last good checkpoint is step {good}; " if good else "there is no checkpoint yet; ")
                + "lower config.schedule.learning_rate or lengthen warmup_epochs, in another workdir"
            )
        if step % self.run.config.train.log_every == 0 or step == self.run.total_steps:
            self._write(step, metrics)

    def _write(self, step: int, metrics: dict[str, float]) -> None:
        seconds = time.perf_counter() - self.clock
        metrics["clips_per_second"] = (step - self.since) * self.run.config.train.batch_size / seconds
        metrics |= {f"dropped/{name}": count for name, count in self.dropped.counts.items()}  # of this epoch
        shown = {name: f"{metrics[name]:.4g}" for name in ("loss", "top_1", "clips_per_second")}
        self.progress.set_postfix(shown)
        if self.log:
            self.log.write(step, metrics, "train")
            if not on_terminal():
                line = ", ".join(f"{name} {value}" for name, value in shown.items())
                print(f"step {step} of {self.run.total_steps}, {line}", file=sys.stderr, flush=True)
        self.since, self.clock = step, time.perf_counter()

    def restart_clock(self, step: int) -> None:
        """Leaves out of the speed what was not training."""
        self.since, self.clock = step, time.perf_counter()


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
