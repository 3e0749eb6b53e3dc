"""Checkpoints of a run in progress: Orbax, asynchronous, complete or not there at all."""

import errno
import shutil
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from vivit_jax.errors import UserError


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

    def restore(self, step: int, like: Any) -> tuple[Any, dict[str, Any]]:
        """The state of `step`, shaped and sharded as `like`, and the description of its data."""
        items = ocp.args.Composite(state=ocp.args.StandardRestore(like), data=ocp.args.JsonRestore())
        restored = self._manager.restore(step, args=items)
        return restored["state"], restored["data"]

    def restore_latest(self, like: Any) -> tuple[int, Any, dict[str, Any]]:
        """(step, state, data) of the last checkpoint that can be read; later ones are put aside, and it says so.

        Raises:
          UserError: none can be read. Starting anew would overwrite what may still be saved by hand.
        """
        broken = []
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                found = step, *self.restore(step, like)
            except Exception as error:  # whatever Orbax, TensorStore and JSON meet in a torn or altered file
                broken.append((step, str(error).splitlines()[0][:200] if str(error) else type(error).__name__))
                continue
            for other, reason in broken:
                self._put_aside(other, reason, step)
            return found
        steps = "; ".join(f"step {step}: {reason}" for step, reason in broken)
        raise UserError(f"{self.directory}: no checkpoint can be read ({steps}); start in another workdir")

    def _put_aside(self, step: int, reason: str, instead: int) -> None:
        aside = self.directory.parent / "broken_checkpoints" / str(step)
        if jax.process_index() == 0:
            aside.parent.mkdir(exist_ok=True)
            shutil.rmtree(aside, ignore_errors=True)
            (self.directory / str(step)).rename(aside)
            what = f"The checkpoint of step {step} cannot be read ({reason})"
            print(f"{what}; going on from step {instead}; it is in {aside}")
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


def abstract(state: Any, sharding: Any) -> Any:
    """Shapes and shardings to restore into, from `jax.eval_shape`'s state."""
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, sharding)
