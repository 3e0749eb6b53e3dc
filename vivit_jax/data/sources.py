"""Where videos and their labels come from: a folder or a CSV becomes a list of entries."""

import csv
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable
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
    """One video of a source. `split` is None where the source does not say."""

    path: Path
    name: str  # path relative to the source, as the dataset records it
    label: str
    split: str | None = None


def read_source(source: Path) -> list[Entry]:
    """The entries of a folder of class folders (itself, or one per split), or of a CSV `path,label[,split]`.

    Raises:
      UserError: nothing is there, or it is laid out otherwise; the message says what was expected.
    """
    if source.is_dir():
        return _read_folder(source)
    if source.is_file() and source.suffix.lower() == ".csv":
        return _read_csv(source)
    what = "is neither a folder nor a .csv file" if source.exists() else "does not exist"
    raise UserError(f"--source: {source} {what}")


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _videos(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file() and not path.name.startswith(".")
    )


def _read_folder(source: Path) -> list[Entry]:
    folders = _folders(source)
    expected = f"{source} should hold one folder of videos per class, or train/ and validation/ with these"
    if not folders:
        loose = sum(path.suffix.lower() in VIDEO_SUFFIXES for path in source.iterdir())
        raise UserError(f"--source: {expected}; it holds {f'{loose} videos and no folder' if loose else 'no folder'}")
    if all(folder.name in SPLITS for folder in folders):
        classes = [(path, SPLITS[folder.name]) for folder in folders for path in _folders(folder)]
    else:
        classes = [(folder, None) for folder in folders]
    entries = [
        Entry(path, str(path.relative_to(source)), folder.name, split)
        for folder, split in classes
        for path in _videos(folder)
    ]
    if not entries:
        raise UserError(f"--source: {expected}; no video ({' '.join(sorted(VIDEO_SUFFIXES))}) was found in its folders")
    if empty := {folder.name for folder, _ in classes} - {entry.label for entry in entries}:
        raise UserError(f"--source: no video in the class {_some(empty)} of {source}")
    return entries


def _read_csv(source: Path) -> list[Entry]:
    with source.open(newline="", encoding="utf-8-sig") as lines:
        try:
            table = csv.DictReader(lines)
            columns, rows = table.fieldnames or [], list(table)
        except (csv.Error, UnicodeDecodeError) as error:
            raise UserError(f"--source: {source} is not a CSV file in UTF-8: {error}") from error
    if missing := {"path", "label"} - set(columns):
        raise UserError(
            f"--source: {source} has no column {_some(missing)}; its first line should be path,label[,split]"
        )
    if not rows:
        raise UserError(f"--source: {source} names no videos")
    entries = [_csv_entry(source, number, row) for number, row in enumerate(rows, 2)]
    if absent := [entry.name for entry in entries if not entry.path.is_file()]:
        raise UserError(
            f"--source: {len(absent)} of {len(entries)} files named in {source} are missing: {_some(absent)}"
        )
    if len({entry.split is None for entry in entries}) > 1:
        raise UserError(f"--source: {source} gives a split for some videos and not for others")
    return entries


def _csv_entry(source: Path, number: int, row: dict[str, str | None]) -> Entry:
    name, label, split = ((row.get(key) or "").strip() for key in ("path", "label", "split"))
    if not name or not label:
        raise UserError(f"--source: line {number} of {source} has no {'label' if name else 'path'}")
    if split and split not in SPLITS:
        raise UserError(f"--source: line {number} of {source}: split {split!r} is none of train, validation, test")
    root = source.parent.resolve()
    path = root / name
    if not Path(name).is_absolute() and not path.resolve().is_relative_to(root):
        raise UserError(f"--source: line {number} of {source}: {name} lies outside of {root}; give its absolute path")
    return Entry(path, name, label, SPLITS[split] if split else None)


def check_classes(entries: Iterable[Entry], classes: Iterable[str], which: str) -> None:
    """Raises UserError for a class with fewer than two training videos; `which` says of what kind."""
    sizes = Counter(entry.label for entry in entries if entry.split in (None, "train"))
    for label in sorted(classes):
        if sizes[label] < 2:
            count = "a single video" if sizes[label] else "no video"
            raise UserError(f"--source: the class {label!r} has {count}{which} to train on; it needs two at least")


def split_entries(entries: Iterable[Entry], fraction: float, seed: int) -> dict[str, list[Entry]]:
    """Entries by split; where there is no validation split, `fraction` of each class's training videos become it."""
    splits: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        splits[entry.split or "train"].append(entry)
    if "validation" not in splits:
        by_class: dict[str, list[Entry]] = defaultdict(list)
        for entry in splits.pop("train"):
            by_class[entry.label].append(entry)
        for label, members in sorted(by_class.items()):
            # Seeded by the label too: a class splits the same way whatever the others hold.
            order = np.random.default_rng([seed, zlib.crc32(label.encode())]).permutation(len(members))
            held_out = min(max(round(fraction * len(members)), 1), len(members) - 1)
            splits["validation"] += [members[index] for index in order[:held_out]]
            splits["train"] += [members[index] for index in order[held_out:]]
    return {split: splits[split] for split in ("train", "validation", "test") if splits[split]}


def _some(names: Iterable[str], limit: int = 3) -> str:
    names = sorted(names)
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
