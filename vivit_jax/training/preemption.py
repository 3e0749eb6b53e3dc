"""A run is asked to end: by SIGTERM of a scheduler or of a cloud that takes its machine back, by Ctrl-C of a person."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import jax
from jax.experimental import multihost_utils


class Preempted(Exception):
    """The run was asked to end in the middle of work that nothing is lost of."""


class Preemption:
    """Notices a request to end, at the end of a step, where all processes agree on the step.

    With `jax.distributed` the notice is its own service's, which tells all processes when one of them gets SIGTERM.
    Ctrl-C is as good as that; the second one ends everything at once.
    """

    def __init__(self):
        self.requested, self._idle = False, False
        handlers = {} if jax.process_count() > 1 else {signal.SIGTERM: self._note}
        if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # as of what a shell starts in the background
            handlers[signal.SIGINT] = self._interrupted
        self._before = {number: signal.signal(number, handler) for number, handler in handlers.items()}

    def _interrupted(self, number: int, frame) -> None:
        signal.signal(signal.SIGINT, self._before[signal.SIGINT])
        print("\nends after this step; Ctrl-C again: at once", file=sys.stderr, flush=True)
        signal.raise_signal(signal.SIGTERM)

    def _note(self, number: int, frame) -> None:
        self.requested = True
        if self._idle:
            raise Preempted

    def after(self, step: int) -> bool:
        """Whether the run is to end now that `step` is done."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self.requested

    @contextmanager
    def idle(self) -> Iterator[None]:
        """Inside, a request ends the work at once, by raising Preempted: nothing of the train state is touched."""
        self._idle = True
        try:
            if self.requested:
                raise Preempted
            yield
        finally:
            self._idle = False

    def close(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
