"""Writing files whole or not at all, by one process at a time; reading what was written line by line."""

import csv
import fcntl
import io
import json
import os
import sys
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from vivit_jax.errors import UserError


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


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """One process at a time is inside, the others wait and say so; each looks there for what is done already.

    `path` is a file for the lock, which the system takes from a process that ends, however it does.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another process, which has locked {path}", file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:
            pass  # a file system without locks
        yield
        path.unlink(missing_ok=True)  # whoever waits for it, or comes with a new one, finds the work done


def make_folder(path: Path, flag: str) -> None:
    """Makes it where it is not there yet, before anything is computed for it.

    Raises:
      UserError: nothing can be written there; it names the flag.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        raise UserError(f"{flag}: cannot write to {path}: {error.strerror}") from error


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
