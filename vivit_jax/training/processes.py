"""Several processes, on one machine or many, as one run."""

import itertools
import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
from jax._src import distributed  # its client has no public name; Orbax takes it from here too
from jax.experimental import multihost_utils

from vivit_jax.errors import UserError, first_line

BEAT, SILENCE = 2, 20  # seconds between two signs of life; after which a process without any is taken for dead
HEARTBEAT = 45  # and after which JAX takes it for dead, by itself
ALIVE, DONE = "vivit_jax/alive", "done"


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
    elif not re.fullmatch(r".+:\d+", coordinator):
        raise UserError(f"--coordinator: {coordinator!r} is not HOST:PORT")
    else:
        where = dict(coordinator_address=coordinator, num_processes=num_processes, process_id=process_id)
    try:
        jax.distributed.initialize(**where, heartbeat_timeout_seconds=HEARTBEAT)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"--coordinator={coordinator}: {first_line(error)}") from error


@contextmanager
def together() -> Iterator[None]:
    """Ends this process with one line when another one of the run has died inside.

    At once where a collective operation fails, and after `SILENCE` seconds where this process only waits: JAX's own way
    out is an abort with a stack. That is left for the death of the first process, which JAX notices before we can.
    """
    if jax.process_count() == 1:
        yield
        return
    over = threading.Event()
    watch = threading.Thread(target=_watch, args=(over,), daemon=True)
    watch.start()
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not re.search(r"Gloo|NCCL|UNAVAILABLE|heartbeat|[Cc]onnection", str(error)):
            raise
        _end(first_line(error))
    finally:
        over.set()
        watch.join()
    _say(DONE)


def _board() -> Any:
    """The first process's table of keys and values, which all can read."""
    return distributed.global_state.client


def _say(word: str) -> None:
    _board().key_value_set(f"{ALIVE}/{jax.process_index()}", word, allow_overwrite=True)


def _watch(over: threading.Event) -> None:
    """Says every `BEAT` seconds that this process is there, and ends it when another one has not said so for long."""
    now = time.monotonic()
    heard = {f"{ALIVE}/{index}": ("", now) for index in range(jax.process_count())}  # its last word, and when
    for beat in itertools.count():
        _say(str(beat))
        said, now = _board().key_value_dir_get(ALIVE), time.monotonic()
        heard |= {key: (word, now) for key, word in said if word != heard[key][0]}
        for key, (word, when) in heard.items():
            if word != DONE and now - when > SILENCE:
                _end(f"process {key.split('/')[-1]} is silent")
        if over.wait(BEAT):
            return


def _end(reason: str) -> None:
    which = f"process {jax.process_index()} of {jax.process_count()}"
    message = f"{which}: another one has died or cannot be reached ({reason}); start all again to go on"
    print(f"\nerror: {message} from the last checkpoint", file=sys.stderr, flush=True)
    os._exit(1)  # a plain exit waits for the others first


def on_first(what: str, work) -> None:
    """Calls `work` on process 0, while the others wait."""
    if jax.process_index() == 0:
        work()
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)
