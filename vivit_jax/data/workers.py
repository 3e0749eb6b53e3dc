"""Runs a function over many inputs in processes that may crash or hang without taking the others along."""

import multiprocessing
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from multiprocessing.connection import Connection, wait
from types import ModuleType
from typing import Any

from vivit_jax.memory import keep_memory

MEMORY_LIMIT = 8 << 30  # bytes of address space of a process: what asks for more fails, not the machine
_context = multiprocessing.get_context("spawn")  # forking after JAX has started threads can deadlock


def _serve(function: Callable[[Any], Any], pipe: Connection) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    limit = MEMORY_LIMIT if most == resource.RLIM_INFINITY else min(MEMORY_LIMIT, most)
    resource.setrlimit(resource.RLIMIT_AS, (limit, most))
    leave_interrupts_to_parent()
    pipe.send("started")
    while True:
        try:
            item = pipe.recv()
        except (EOFError, ConnectionResetError):  # the parent is gone or done
            return
        try:
            pipe.send((function(item), None))
        except Exception as error:
            pipe.send((None, error))


def start_decoding(*_: int) -> None:
    """What a decoding process of Grain's does first."""
    keep_memory()
    leave_interrupts_to_parent()
    end_with_parent()


def leave_interrupts_to_parent() -> None:
    """Ctrl-C reaches all processes of a terminal: the parent decides what becomes of it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def end_with_parent() -> None:
    """Makes this process end soon after its parent, however that one ended; Grain's own workers wait for ever."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _hidden_main() -> Iterator[None]:
    """What starts inside does not import the main module, whose functions it does not need: a script without a guard
    would start itself again there."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


class _Worker:
    def __init__(self, function: Callable[[Any], Any]):
        self.pipe, theirs = _context.Pipe()
        self.process = _context.Process(target=_serve, args=(function, theirs), daemon=True)
        with nullcontext() if function.__module__ == "__main__" else _hidden_main():
            self.process.start()
        theirs.close()
        self.started, self.item, self.deadline = False, None, 0.0

    def _await_start(self) -> None:
        try:
            self.started = self.started or bool(self.pipe.recv())
        except (EOFError, ConnectionResetError) as error:
            raise RuntimeError("a worker process does not start; is the main module guarded by __name__?") from error

    def give(self, item: Any, time_limit: float) -> None:
        self._await_start()
        self.item, self.deadline = item, time.monotonic() + time_limit
        self.pipe.send(item)

    def take(self, ready: bool) -> tuple[tuple[Any, Exception | None], bool]:
        """(result, error), and whether the process is still good for another item."""
        if not ready:
            return (None, TimeoutError("takes too long")), False
        try:
            return self.pipe.recv(), True
        except (EOFError, ConnectionResetError):
            return (None, ChildProcessError("crashes the decoder")), False

    def end(self) -> None:
        # The pipe closes when it is let go: where the garbage collector ends a generator, it may be closed already.
        self.process.kill()
        self.process.join()


class Isolated:
    """Calls a function in a process of its own, which is replaced when it crashes or hangs; not thread-safe.

    The process starts with the first call, or before it by `start`.
    """

    def __init__(self, function: Callable[[Any], Any], time_limit: float):
        self.function, self.time_limit, self._worker = function, time_limit, None

    def start(self) -> None:
        self._worker = self._worker or _Worker(self.function)

    def __call__(self, item: Any) -> tuple[Any, Exception | None]:
        """(result, error), as of `run`."""
        self._worker = worker = self._worker or _Worker(self.function)
        worker.give(item, self.time_limit)
        outcome, alive = worker.take(bool(wait([worker.pipe], self.time_limit)))
        if not alive:
            self.close()
        return outcome

    def close(self) -> None:
        if self._worker is not None:
            self._worker.end()
            self._worker = None


def run(
    function: Callable[[Any], Any], items: Iterable[Any], num_workers: int, time_limit: float
) -> Generator[tuple[Any, Any, Exception | None]]:
    """Yields (item, result, error) in the order of completion.

    Args:
      function: importable, as are its inputs and results picklable.
      time_limit: seconds for one item; past it the process is killed and the error is a TimeoutError.
    A process that dies gives a ChildProcessError for the item it worked on. Closing the generator ends them all.
    """
    remaining, workers = list(items)[::-1], []
    try:
        workers += [_Worker(function) for _ in range(min(num_workers, len(remaining)))]
        for worker in workers:
            worker.give(remaining.pop(), time_limit)
        while workers:
            timeout = max(0.0, min(worker.deadline for worker in workers) - time.monotonic())
            ready = wait([worker.pipe for worker in workers], timeout)
            for worker in list(workers):
                if worker.pipe not in ready and time.monotonic() < worker.deadline:
                    continue
                item, (result, error), alive = worker.item, *worker.take(worker.pipe in ready)
                if not alive:
                    worker.end()
                    workers.remove(worker)
                    worker = _Worker(function) if remaining else None
                    workers += [worker] if worker else []
                if remaining and worker:
                    worker.give(remaining.pop(), time_limit)
                elif worker:
                    worker.end()
                    workers.remove(worker)
                yield item, result, error
    finally:
        for worker in workers:
            worker.end()
