"""What is said of a run while it trains, and what ends it: numbers that are not finite, videos that cannot be read."""

import math
import sys
import time

import jax
from tqdm import tqdm

from vivit_jax.checkpoints.training import Checkpoints
from vivit_jax.errors import UserError
from vivit_jax.progress import on_terminal
from vivit_jax.training.dropped import Dropped
from vivit_jax.training.metrics import Log
from vivit_jax.training.run import Run


class Reporter:
    """Reads each step's metrics one step late, checks them, and logs every so often."""

    def __init__(self, run: Run, checkpoints: Checkpoints, log: Log | None, progress: tqdm, start: int):
        self.run, self.checkpoints, self.log, self.progress = run, checkpoints, log, progress
        self.waiting: tuple[int, dict[str, jax.Array]] | None = None
        self.since, self.clock = start, time.perf_counter()
        self.epoch_start = start  # the step before those whose dropped clips are counted
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
            self.epoch_start = step - 1
        clips = self.run.config.train.batch_size
        self.dropped.add(found.pop("dropped"), self.epoch_start * clips, step * clips)
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
