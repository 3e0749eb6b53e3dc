"""Programs that take turns, each at the batch that it is fastest with."""

import time
from collections.abc import Callable
from typing import NamedTuple

from on_torch import torch

Run = Callable[[int], None]  # so many times, and waits for the last
ROUND = 1.0  # seconds


class Contestant(NamedTuple):
    """What takes its turn."""

    run: Run
    batch: int
    calls: int  # in a round

    def seconds(self) -> float:
        """Of a clip, in one round."""
        began = time.perf_counter()
        self.run(self.calls)
        return (time.perf_counter() - began) / (self.calls * self.batch)


def contestant(run: Run, batch: int) -> Contestant:
    run(2)  # which compiles what is not compiled yet
    step = batch * min(Contestant(run, batch, 2).seconds() for _ in range(2))
    return Contestant(run, batch, 2 + int(ROUND / step))


def fastest(
    candidates: dict[int, Callable[[], Run]], first: bool = False
) -> tuple[Contestant | None, dict[int, float]]:
    """The batch with the most clips per second, and those of all; or the first one that memory suffices for."""
    best, found = None, {}
    for batch, make in candidates.items():
        try:
            one = contestant(make(), batch)
            found[batch] = 1 / min(one.seconds() for _ in range(2))
        except RuntimeError as error:  # as memory that ends, in JAX and torch
            print(f"{batch} clips: {str(error).splitlines()[0][:120]}", flush=True)
            continue
        finally:
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        if found[batch] == max(found.values()):
            best = one
        if first:
            break
    return best, found
