"""What a source holds, before anything is made of it: every video is decoded, nothing is written."""

from collections import Counter
from collections.abc import Iterator

import numpy as np

from vivit_jax.data import workers
from vivit_jax.data.clips import TIME_LIMIT
from vivit_jax.data.sources import Entry, Listing, some
from vivit_jax.data.video_files import Facts, probe
from vivit_jax.progress import progress

NUM_NAMES = 20  # printed of each kind of fault


def _probe(entry: Entry) -> Facts:
    return probe(entry.path, entry.seconds)


def check(
    listing: Listing, official: dict[str, int], official_classes: tuple[int, ...], num_workers: int
) -> Iterator[str]:
    """Lines of a report: counts beside the official ones, durations, sizes, rates, what is missing or broken."""
    facts: dict[Entry, Facts] = {}
    broken: dict[str, str] = {}
    results = workers.run(_probe, listing.entries, num_workers, TIME_LIMIT)
    for entry, found, error in progress(results, "check", len(listing.entries), "videos"):
        if error is None:
            facts[entry] = found
        else:
            broken[entry.name] = str(error)
    yield from _counts(listing, facts, official, official_classes)
    if facts:
        yield from _histograms(list(facts.values()))
    yield from _faults("do not decode", [f"{name}: {reason}" for name, reason in sorted(broken.items())])
    yield from _faults("have a label and no video", sorted(listing.missing))
    yield from _faults("have no label", sorted(listing.unlabelled))


def _counts(listing: Listing, facts: dict[Entry, Facts], official: dict[str, int], classes: tuple[int, ...]):
    labelled = Counter(entry.split or "no split" for entry in listing.entries)
    decoded = Counter(entry.split or "no split" for entry in facts)
    for split in sorted(labelled | Counter(official)):
        known = f", officially {official[split]:,}" if split in official else ""
        yield f"{split}: {labelled[split]:,} videos, of which {decoded[split]:,} decode{known}"
    for index, (head, names) in enumerate(listing.classes.items()):
        used = {entry.labels[index] for entry in listing.entries}
        known = f", officially {classes[index]:,}" if classes else ""
        empty = f"; no video in {some(set(names) - used)}" if set(names) - used else ""
        yield f"{head}: {len(names):,} classes{known}{empty}"
        sizes = Counter(entry.labels[index] for entry in listing.entries).values()
        yield f"videos of a {'class' if head == 'label' else head}: {min(sizes):,} to {max(sizes):,}"


def _histograms(facts: list[Facts]) -> Iterator[str]:
    seconds = np.array([x.num_frames / x.fps for x in facts])
    low, *middle, high = np.percentile(seconds, [0, 25, 50, 75, 100])
    quartiles = ", ".join(f"{x:.1f}" for x in middle)
    yield f"seconds: {low:.1f} to {high:.1f}, quartiles {quartiles}, in all {seconds.sum() / 3600:.2f} hours"
    yield _most("frames per second", Counter(f"{x.fps:.4g}" for x in facts))
    yield _most("width x height", Counter(f"{x.width} x {x.height}" for x in facts))


def _most(what: str, counts: Counter, limit: int = 8) -> str:
    shown = counts.most_common(limit)
    rest = sum(counts.values()) - sum(count for _, count in shown)
    others = [f"others: {rest}"] if rest else []
    return f"{what}: " + ", ".join([*(f"{name}: {count}" for name, count in shown), *others])


def _faults(what: str, names: list[str]) -> Iterator[str]:
    yield f"{len(names)} {what}" + (":" if names else "")
    yield from (f"  {name}" for name in names[:NUM_NAMES])
    if len(names) > NUM_NAMES:
        yield f"  and {len(names) - NUM_NAMES} more"
