"""Several processes, on one machine or many, as one run."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
from jax.experimental import multihost_utils

from vivit_jax.errors import UserError

HEARTBEAT = 30  # seconds after which a process that says nothing is taken for dead, and ends the others


def join(coordinator: str, num_processes: int | None, process_id: int | None) -> None:
    """Makes this process one of a run, before anything is computed.

    Args:
      coordinator: HOST:PORT of the first process; "auto" leaves it, and the rest, to what a TPU pod, Slurm, Open MPI or
        Kubernetes says of itself.
    Raises:
      UserError: the others cannot be reached, or it is not said which process this is.
    """
    if coordinator == "auto":
        where: dict[str, Any] = {}
    elif num_processes is None or process_id is None:
        raise UserError("--coordinator: needs --num_processes and --process_id as well, or --coordinator=auto")
    elif not 0 <= process_id < num_processes:
        raise UserError(f"--process_id: {process_id} is not one of {num_processes} processes, from 0")
    else:
        where = dict(coordinator_address=coordinator, num_processes=num_processes, process_id=process_id)
    try:
        jax.distributed.initialize(**where, heartbeat_timeout_seconds=HEARTBEAT)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"--coordinator={coordinator}: {str(error).splitlines()[0]}") from error


@contextmanager
def together() -> Iterator[None]:
    """Ends this process with one line when another one of the run has died inside.

    At once: JAX's own way out first waits for the other, and then aborts. Where a device waits for ever for the other's
    part, JAX ends the process by itself when that has been silent for `HEARTBEAT` seconds.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1 or not re.search(r"Gloo|NCCL|UNAVAILABLE|heartbeat|[Cc]onnection", str(error)):
            raise
        which, reason = f"process {jax.process_index()} of {jax.process_count()}", str(error).splitlines()[0][:200]
        message = f"{which}: another one has died or cannot be reached ({reason}); start all again to go on"
        print(f"\nerror: {message} from the last checkpoint", file=sys.stderr, flush=True)
        os._exit(1)


def on_first(what: str, work) -> None:
    """Calls `work` on process 0, while the others wait."""
    if jax.process_index() == 0:
        work()
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)
