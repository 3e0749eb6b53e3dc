"""What annotation files become, and how that is brought together with the videos that are there."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from vivit_jax.data.sources import Entry, Listing, some, videos_under
from vivit_jax.errors import UserError


class Row(NamedTuple):
    """A labelled video: its file is known by the end of its path."""

    file: str
    labels: tuple[str, ...]
    split: str | None  # None: not used
    seconds: tuple[float, float] | None = None


class Annotations(NamedTuple):
    rows: list[Row]
    classes: dict[str, tuple[str, ...]]  # by head, in the order of their numbers
    file: Callable[[Path], str] = lambda path: path.stem  # what of a path `Row.file` is


def read(root: Path, annotations: Callable[[Path], Annotations]) -> Listing:
    """Brings together what is labelled and what is there, wherever it lies under `root`.

    Raises:
      UserError: an annotation file is missing, or is not as its owners distribute it.
    """
    if not root.is_dir():
        raise UserError(f"--source: {root} is not a folder")
    try:
        return _listing(root, annotations(root))
    except (ValueError, LookupError, TypeError) as error:
        if isinstance(error, UserError):
            raise
        what = f"{type(error).__name__}: {error}"
        raise UserError(
            f"--source: an annotation file in {root} is not as its owners distribute it ({what})"
        ) from error


def _listing(root: Path, annotations: Annotations) -> Listing:
    for head, (names, labels) in zip(annotations.classes, _by_head(annotations), strict=True):
        if unknown := labels - set(names):
            raise UserError(f"--source: {root}: no {head} is called {some(repr(label) for label in unknown)}")
    paths = {annotations.file(path): path for path in videos_under(root)}
    entries, missing = [], []
    for row in annotations.rows:
        if row.split is None:
            continue
        part = "" if row.seconds is None else "@{:.2f}-{:.2f}".format(*row.seconds)
        if row.file in paths:
            name = f"{paths[row.file].relative_to(root)}{part}"
            entries.append(Entry(paths[row.file], name, row.labels, row.split, row.seconds))
        else:
            missing.append(f"{row.file}{part}")
    labelled = {row.file for row in annotations.rows}
    unlabelled = tuple(str(path.relative_to(root)) for name, path in paths.items() if name not in labelled)
    if not entries:
        raise UserError(
            f"--source: of {len(missing)} videos that have a label, none is under {root}; {_example(missing)}"
        )
    return Listing(entries, annotations.classes, tuple(missing), unlabelled)


def _example(missing: list[str]) -> str:
    return f"a file called {missing[0]} was looked for" if missing else "its annotation files are empty"


def _by_head(annotations: Annotations) -> list[tuple[tuple[str, ...], set[str]]]:
    """The names of each head's classes, and those that are used."""
    heads = enumerate(annotations.classes.values())
    return [(names, {row.labels[index] for row in annotations.rows}) for index, names in heads]


def find(root: Path, *names: str) -> Path:
    """An annotation file, in `root` or a folder of it.

    Raises:
      UserError: it is not there; says what was looked for and what was found.
    """
    for pattern in (pattern for depth in ("", "*/", "*/*/") for pattern in [f"{depth}{name}" for name in names]):
        if found := sorted(path for path in root.glob(pattern) if path.is_file()):
            return found[0]
    there = some((f"{path.name}/" if path.is_dir() else path.name for path in root.iterdir()), 8)
    raise UserError(f"--source: {root} should hold {' or '.join(names)}; it holds {there or 'nothing'}")
