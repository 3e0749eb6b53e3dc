"""How far long work is: a bar on a terminal, and a line now and then in what is kept as a file or by a pod."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
SECONDS = 60.0  # between two lines


def on_terminal() -> bool:
    """Whether somebody looks at stderr, where progress is shown."""
    return sys.stderr.isatty()


def progress(items: Iterable[Item], what: str, total: int, unit: str, silent: bool = False) -> Iterator[Item]:
    """Yields `items`, of which there are `total`, and says how many were asked for."""
    if silent:
        yield from items
        return
    if on_terminal():
        yield from tqdm(items, desc=what, total=total, unit=f" {unit}", leave=False, mininterval=0.5)
        return
    said = time.monotonic()
    for done, item in enumerate(items):
        if time.monotonic() - said >= SECONDS:
            print(f"{what}: {done} of {total} {unit}", file=sys.stderr, flush=True)
            said = time.monotonic()
        yield item
