"""Checkpoints of a run in progress: Orbax, asynchronous, complete or not there at all."""

import errno
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils

from vivit_jax.errors import UserError, first_line

REASON = 200  # bytes of why a checkpoint cannot be read, as one process tells the others


class Checkpoints:
    """The last `keep` train states under `workdir/checkpoints`, each with what its data pipeline was made of."""

    def __init__(self, workdir: Path, keep: int):
        self.directory = (workdir / "checkpoints").absolute()
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=True)
        self._manager = ocp.CheckpointManager(self.directory, options=options)

    def latest_step(self) -> int | None:
        return self._manager.latest_step()

    def save(self, step: int, state: Any, data: dict[str, Any]) -> None:
        """Starts writing; the directory takes its final name when everything is in it.

        Raises:
          OSError: the disk is too full for it; nothing was written.
        """
        size = 2**20 + sum(x.nbytes for x in jax.tree.leaves(state))
        if shutil.disk_usage(self.directory).free < size:  # before anything is written, where it is plain to see
            self.wait()  # the one before may still be on its way
            raise OSError(errno.ENOSPC, f"{size} bytes are needed in {self.directory}")
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), data=ocp.args.JsonSave(data))
        self._manager.save(step, args=items)

    def restore_latest(self, like: Any) -> tuple[int, Any, dict[str, Any]]:
        """(step, state, data) of the last checkpoint that can be read; later ones are put aside, and it says so.

        With several processes it is the last one that all of them can read: each reads other files of a checkpoint.

        Args:
          like: shapes and shardings of the state, as of `abstract`.
        Raises:
          UserError: none can be read. Starting anew would overwrite what may still be saved by hand.
        """
        broken = []
        for step in sorted(self._manager.all_steps(), reverse=True):
            found, reason = self._read(step, like)
            if found:
                self._put_aside(broken, step)
                return step, *found
            broken.append((step, reason))
        steps = "; ".join(f"step {step}: {reason}" for step, reason in broken)
        raise UserError(f"{self.directory}: no checkpoint can be read ({steps}); start in another workdir")

    def _read(self, step: int, like: Any) -> tuple[tuple[Any, dict[str, Any]] | None, str]:
        """The state of `step` and the description of its data, or why one of the processes cannot read them."""
        items = ocp.args.Composite(state=ocp.args.StandardRestore(like), data=ocp.args.JsonRestore())
        found, reason = None, ""
        try:
            # In the manager's own `restore` processes wait for each other: those that can read, for one that cannot.
            restored = ocp.CompositeCheckpointHandler().restore(epath.Path(self.directory / str(step)), args=items)
            found = restored["state"], restored["data"]
        except Exception as error:  # whatever Orbax, TensorStore and JSON meet in a torn or altered file
            reason = first_line(error)
        reason = _of_any(reason)
        return None if reason else found, reason

    def _put_aside(self, broken: list[tuple[int, str]], instead: int) -> None:
        if not broken:
            return
        for step, reason in broken if jax.process_index() == 0 else ():
            aside = self.directory.parent / "broken_checkpoints" / str(step)
            aside.parent.mkdir(exist_ok=True)
            shutil.rmtree(aside, ignore_errors=True)
            (self.directory / str(step)).rename(aside)
            what = f"The checkpoint of step {step} cannot be read ({reason})"
            print(f"{what}; going on from step {instead}; it is in {aside}")
        multihost_utils.sync_global_devices("put aside")  # all list the directory without them
        self._manager.reload()

    def wait(self) -> None:
        """Returns when what was started is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        self._manager.close()

    def full(self) -> str:
        """What to say when the disk is full."""
        steps = saved_steps(self.directory.parent)
        good = f"the last good checkpoint is step {steps[-1]}" if steps else "there is no earlier checkpoint"
        return f"{self.directory}: the disk is full; {good}; free some space and start again"


def saved_steps(workdir: Path) -> list[int]:
    """The steps of a workdir's complete checkpoints, in order."""
    directory = workdir / "checkpoints"
    return sorted(ocp.utils.checkpoint_steps(directory)) if directory.exists() else []


def _of_any(reason: str) -> str:
    """The reason of the first process that has one, on all of them; each gives its own, or none."""
    own = np.frombuffer(reason.encode()[:REASON].ljust(REASON), np.uint8)
    reasons = [row.tobytes().decode(errors="ignore").strip() for row in multihost_utils.process_allgather(own)]
    return next(filter(None, reasons), "")


def abstract(state: Any, sharding: Any) -> Any:
    """Shapes and shardings to restore into, from `jax.eval_shape`'s state."""
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, sharding)
