"""Writing files whole or not at all, and reading what was written line by line."""

import csv
import io
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` to write to, which takes its place when all went well, and is gone if not."""
    # Machines that share a disk have processes of the same number.
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def distinct_stems(paths: Iterable[str]) -> dict[str, str]:
    """Names by path, without folder and suffix, and numbered where several would be the same."""
    names, used = {}, set[str]()
    for path in paths:
        stem = Path(path).stem
        names[path] = next(name for n in count(1) if (name := f"{stem}_{n}" if n > 1 else stem) not in used)
        used.add(names[path])
    return names


def write_bytes(path: Path, data: bytes) -> None:
    """Leaves the old file, or none, where writing fails."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, values: Any) -> None:
    write_bytes(path, (json.dumps(values, indent=2) + "\n").encode())


def write_csv(path: Path, rows: Iterable[Sequence[Any]]) -> None:
    table = io.StringIO(newline="")
    csv.writer(table).writerows(rows)
    write_bytes(path, table.getvalue().encode())


def read_json_lines(path: Path) -> list[Any]:
    """The objects of a file of one a line, none where there is no file; half a line of a killed writer is left out."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]
