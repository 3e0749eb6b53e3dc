"""Clips that could not be had: which, why, and when they are too many. None is replaced by another in silence."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vivit_jax.data.clips import write_skipped
from vivit_jax.data.decode import FAULTS
from vivit_jax.errors import UserError


class Dropped:
    """What one pass over a split could not read, up to the part of it that `config.data.max_bad_fraction` allows."""

    def __init__(self, source: Any, limit: float, workdir: Path, name: str):
        """The list is written to `workdir/dropped_NAME.csv`, of each process its own."""
        process = f"_{jax.process_index()}" if jax.process_count() > 1 else ""
        self.source, self.limit, self.path = source, limit, workdir / f"dropped_{name}{process}.csv"
        self.counts: Counter[str] = Counter()
        self.reasons: dict[str, str] = {}

    def note(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Writes down this process's faults of a batch, and returns what of it goes to the devices."""
        new = {}
        for where in np.flatnonzero(batch["fault"]):
            name, reason = self._name(int(batch["index"][where])), list(FAULTS.values())[batch["fault"][where] - 1]
            if name not in self.reasons:
                new[name] = reason
        if new:
            self.reasons |= new
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_skipped(self.path, dict(sorted(self.reasons.items())))
        return {key: value for key, value in batch.items() if key != "index"}

    def _name(self, index: int) -> str:
        try:
            return self.source[index]["path"]
        except Exception:  # what made it unreadable
            return f"record {index}"

    def add(self, counts: Mapping[str, Any], first: int = 0, last: int = 0) -> None:
        """Counts what all processes have dropped of a batch.

        Args:
          first, last: the clips that this pass has seen, numbered through all epochs; by default each video once.
        Raises:
          UserError: it is more than the limit, with the first of the list.
        """
        self.counts += Counter({name: int(count) for name, count in counts.items()})
        size = len(self.source)
        total = self.counts.total() - again(first, last, size)  # so many videos, at least
        if total > self.limit * size:
            why = ", ".join(f"{name} {count}" for name, count in sorted(self.counts.items()))
            example = next((f"{name}: {reason}; " for name, reason in sorted(self.reasons.items())), "")
            raise UserError(
                f"config.data.max_bad_fraction: {total} of the {size} videos of {self.source.split!r} cannot be read "
                f"({why}), more than {self.limit:g} of it; {example}all are in {self.path}; delete the dataset and "
                "ingest it again"
            )

    def start_over(self) -> None:
        """Another pass begins."""
        self.counts.clear()


def again(first: int, last: int, size: int) -> int:
    """How many of the clips from `first` up to `last` may be of videos that one of them has been of already: an epoch
    has each of `size` once, and may end within a batch."""
    end = (first // size + 1) * size
    once = max(min(last, end) - first, min(last - end, size))
    return last - first - once
