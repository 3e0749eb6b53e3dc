"""Runs a function over many inputs in processes that may crash or hang without taking the others along."""

import multiprocessing
import time
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any

_context = multiprocessing.get_context("spawn")  # forking after JAX has started threads can deadlock


def _serve(function: Callable[[Any], Any], pipe: Connection) -> None:
    while True:
        try:
            item = pipe.recv()
        except EOFError:  # the parent is gone or done
            return
        try:
            pipe.send((function(item), None))
        except Exception as error:
            pipe.send((None, error))


class _Worker:
    def __init__(self, function: Callable[[Any], Any]):
        self.pipe, theirs = _context.Pipe()
        self.process = _context.Process(target=_serve, args=(function, theirs), daemon=True)
        self.process.start()
        theirs.close()
        self.item, self.deadline = None, 0.0

    def give(self, item: Any, time_limit: float) -> None:
        self.item, self.deadline = item, time.monotonic() + time_limit
        self.pipe.send(item)

    def end(self) -> None:
        self.pipe.close()
        self.process.kill()
        self.process.join()


def run(
    function: Callable[[Any], Any], items: Iterable[Any], num_workers: int, time_limit: float
) -> Iterator[tuple[Any, Any, Exception | None]]:
    """Yields (item, result, error) in the order of completion.

    Args:
      function: importable, as are its inputs and results picklable.
      time_limit: seconds for one item; past it the process is killed and the error is a TimeoutError.
    A process that dies gives a ChildProcessError for the item it worked on.
    """
    remaining, workers = list(items)[::-1], []
    try:
        for _ in range(min(num_workers, len(remaining))):
            workers.append(_Worker(function))
            workers[-1].give(remaining.pop(), time_limit)
        while workers:
            timeout = max(0.0, min(worker.deadline for worker in workers) - time.monotonic())
            ready = wait([worker.pipe for worker in workers], timeout)
            for worker in list(workers):
                if worker.pipe not in ready and time.monotonic() < worker.deadline:
                    continue
                item, (result, error), alive = worker.item, *_receive(worker, ready)
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


def _receive(worker: _Worker, ready: list) -> tuple[tuple[Any, Exception | None], bool]:
    if worker.pipe not in ready:
        return (None, TimeoutError("takes too long")), False
    try:
        return worker.pipe.recv(), True
    except (EOFError, ConnectionResetError):
        return (None, ChildProcessError("crashes the decoder")), False
