"""A run is asked to end by SIGTERM: of a scheduler, of a cloud that takes its machine back, or of a person."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import jax
from jax.experimental import multihost_utils


class Preempted(Exception):
    """The run was asked to end in the middle of work that nothing is lost of."""


class Preemption:
    """Notices a request to end, at the end of a step, where all processes agree on the step.

    With `jax.distributed` the notice is its own service's, which tells all processes when one of them gets SIGTERM.
    """

    def __init__(self):
        self.requested, self._idle = False, False
        self._before = None if jax.process_count() > 1 else signal.signal(signal.SIGTERM, self._note)

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
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
