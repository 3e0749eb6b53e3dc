"""Checkpoints of a run in progress: Orbax, asynchronous, complete or not there at all."""

import errno
import shutil
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp


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
