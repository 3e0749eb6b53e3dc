"""Where videos and their labels come from: a folder or a CSV becomes a listing of entries."""

import csv
import hashlib
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vivit_jax.errors import UserError

_CONTAINERS = "3gp", "asf", "avi", "flv", "m2ts", "m4v", "mkv", "mov", "mp4", "mpeg", "mpg", "mts", "ogv", "ts", "vob"
VIDEO_SUFFIXES = frozenset(f".{name}" for name in (*_CONTAINERS, "webm", "wmv"))
SPLITS = {"train": "train", "training": "train", "val": "validation", "valid": "validation"}
SPLITS |= {"validation": "validation", "test": "test"}


@dataclass(frozen=True)
class Entry:
    """A video of a source, or a part of one. `split` is None where the source does not say."""

    path: Path
    name: str  # path relative to the source, as the dataset records it
    labels: tuple[str, ...]  # one for each head of the listing's classes
    split: str | None = None
    seconds: tuple[float, float] | None = None  # where the part starts and stops in the file


@dataclass(frozen=True)
class Listing:
    """What a source holds, as its annotations and its files have it."""

    entries: list[Entry]
    classes: Mapping[str, tuple[str, ...]]  # by head, in the order of their numbers
    missing: tuple[str, ...] = ()  # labels without a video
    unlabelled: tuple[str, ...] = ()  # videos without a label

    def digest(self) -> str:
        """Another one for other names, labels, splits or parts."""
        lines = sorted(repr((entry.name, entry.labels, entry.split, entry.seconds)) for entry in self.entries)
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def read_source(source: Path) -> Listing:
    """What a folder of class folders holds (itself, or one per split), or a CSV `path,label[,split]`.

    Raises:
      UserError: nothing is there, or it is laid out otherwise; the message says what was expected.
    """
    if source.is_dir():
        return _read_folder(source)
    if source.is_file() and source.suffix.lower() == ".csv":
        return _read_csv(source)
    what = "is neither a folder nor a .csv file" if source.exists() else "does not exist"
    raise UserError(f"--source: {source} {what}")


def videos_under(folder: Path) -> list[Path]:
    """Every file below `folder` that is called like a video."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file() and not path.name.startswith(".")
    )


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _classes(entries: Iterable[Entry]) -> dict[str, tuple[str, ...]]:
    return {"label": tuple(sorted({entry.labels[0] for entry in entries}))}


def _read_folder(source: Path) -> Listing:
    folders = _folders(source)
    expected = f"{source} should hold one folder of videos per class, or train/ and validation/ with these"
    if not folders:
        loose = sum(path.suffix.lower() in VIDEO_SUFFIXES for path in source.iterdir())
        raise UserError(f"--source: {expected}; it holds {f'{loose} videos and no folder' if loose else 'no folder'}")
    splits = {folder: SPLITS[folder.name.casefold()] for folder in folders if folder.name.casefold() in SPLITS}
    if len(splits) == len(folders):
        classes = [(path, split) for folder, split in splits.items() for path in _folders(folder)]
    elif len(splits) > 1 and any(map(_folders, splits)):
        others = some(folder.name for folder in folders if folder not in splits)
        raise UserError(f"--source: {expected}; beside {some(folder.name for folder in splits)} it has {others}")
    else:
        classes = [(folder, None) for folder in folders]
    entries = [
        Entry(path, str(path.relative_to(source)), (folder.name,), split)
        for folder, split in classes
        for path in videos_under(folder)
    ]
    if not entries:
        raise UserError(f"--source: {expected}; no video ({' '.join(sorted(VIDEO_SUFFIXES))}) was found in its folders")
    if empty := {folder.name for folder, _ in classes} - {entry.labels[0] for entry in entries}:
        raise UserError(f"--source: no video in the class {some(empty)} of {source}")
    used = {entry.path for entry in entries}
    unlabelled = tuple(str(path.relative_to(source)) for path in videos_under(source) if path not in used)
    return Listing(entries, _classes(entries), (), unlabelled)


def _read_csv(source: Path) -> Listing:
    rows = read_table(source, ("path", "label"), "path,label[,split]")
    if not rows:
        raise UserError(f"--source: {source} names no videos")
    entries = [_csv_entry(source, number, row) for number, row in enumerate(rows, 2)]
    if len({entry.split is None for entry in entries}) > 1:
        raise UserError(f"--source: {source} gives a split for some videos and not for others")
    there = [entry for entry in entries if entry.path.is_file()]
    if not there:
        names = some(entry.name for entry in entries)
        raise UserError(f"--source: none of the {len(entries)} files named in {source} is there: {names}")
    return Listing(there, _classes(entries), tuple(entry.name for entry in entries if not entry.path.is_file()))


def read_table(path: Path, columns: Iterable[str], first_line: str) -> list[dict[str, str]]:
    """The rows of a CSV file with a header.

    Raises:
      UserError: it is no CSV in UTF-8, or has not these columns.
    """
    with path.open(newline="", encoding="utf-8-sig") as lines:
        try:
            table = csv.DictReader(lines)
            found, rows = table.fieldnames or [], list(table)
        except (csv.Error, UnicodeDecodeError) as error:
            raise UserError(f"--source: {path} is not a CSV file in UTF-8: {error}") from error
    if absent := set(columns) - set(found):
        raise UserError(f"--source: {path} has no column {some(absent)}; its first line should be {first_line}")
    return [{key: (value or "").strip() for key, value in row.items() if isinstance(key, str)} for row in rows]


def _csv_entry(source: Path, number: int, row: dict[str, str]) -> Entry:
    name, label, split = row["path"], row["label"], row.get("split", "").casefold()
    if not name or not label:
        raise UserError(f"--source: line {number} of {source} has no {'label' if name else 'path'}")
    if split and split not in SPLITS:
        raise UserError(f"--source: line {number} of {source}: split {split!r} is none of train, validation, test")
    root = source.parent.resolve()
    path = root / name
    if not Path(name).is_absolute() and not path.resolve().is_relative_to(root):
        raise UserError(f"--source: line {number} of {source}: {name} lies outside of {root}; give its absolute path")
    return Entry(path, name, (label,), SPLITS[split] if split else None)


def check_classes(entries: Iterable[Entry], classes: Iterable[str], which: str) -> None:
    """Raises UserError for a class with fewer than two training videos; `which` says of what kind."""
    sizes = Counter(entry.labels[0] for entry in entries if entry.split in (None, "train"))
    for label in sorted(classes):
        if sizes[label] < 2:
            count = "a single video" if sizes[label] else "no video"
            raise UserError(f"--source: the class {label!r} has {count}{which} to train on; it needs two at least")


def hold_out(entries: Iterable[Entry], fraction: float, seed: int) -> dict[str, list[Entry]]:
    """Entries by split; where there is no validation split, `fraction` of each class's training videos become it."""
    splits: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        splits[entry.split or "train"].append(entry)
    if "validation" not in splits:
        by_class: dict[str, list[Entry]] = defaultdict(list)
        for entry in splits.pop("train"):
            by_class[entry.labels[0]].append(entry)
        for label, members in sorted(by_class.items()):
            # Seeded by the label too: a class splits the same way whatever the others hold.
            order = np.random.default_rng([seed, zlib.crc32(label.encode())]).permutation(len(members))
            held_out = min(max(round(fraction * len(members)), 1), len(members) - 1)
            splits["validation"] += [members[index] for index in order[:held_out]]
            splits["train"] += [members[index] for index in order[held_out:]]
    return {split: splits[split] for split in ("train", "validation", "test") if splits[split]}


def some(names: Iterable[str], limit: int = 3) -> str:
    names = sorted(names)
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
