"""Re-encoding as jobs: each in a process that may fail, each result kept until the dataset is complete."""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

from vivit_jax.data.sources import Entry
from vivit_jax.data.transcode import Clip, Storage, transcode
from vivit_jax.data.video_files import TranscodeError
from vivit_jax.files import write_bytes, write_csv, write_json

TIME_LIMIT = 900.0  # seconds for one video
Example = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """A video to re-encode; what comes out is kept under `cache`, on a disk that all workers share."""

    key: str  # of the example, in its split
    entry: Entry
    heads: tuple[str, ...]
    cache: Path
    short_side: int
    storage: Storage


def encode(job: Job) -> Path:
    """The kept clip of a job, made if it is not there: it is known by its file's content and how it is encoded."""
    entry = job.entry
    part = "" if entry.seconds is None else "-{:.3f}-{:.3f}".format(*entry.seconds)
    with _source(entry.path) as file:
        digest = _digest(file, entry.path, job.cache)
    path = job.cache / f"{digest}{part}-{job.short_side}.{job.storage}"
    if not path.exists():
        clip = transcode(entry.path, job.short_side, job.storage, entry.seconds)
        facts = asdict(clip)
        video = facts.pop("video")
        write_json(path.with_suffix(f".{job.storage}.json"), facts)
        write_bytes(path, video)  # last: it says that the clip is complete
    return path


def _source(path: Path) -> BufferedReader:
    """Raises TranscodeError where there is no video to read; that any other file is missing is no fault of it."""
    try:
        return path.open("rb")
    except (FileNotFoundError, PermissionError) as error:
        raise TranscodeError(error.strerror or str(error)) from error


def _digest(file: BufferedReader, path: Path, cache: Path) -> str:
    """SHA-256 of a file, read once for all parts of it: a recording of hours can have hundreds."""
    stat = os.fstat(file.fileno())
    known = hashlib.sha256(f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()[:32]
    memory = cache / f"{known}.sha256"
    if not memory.exists():
        write_bytes(memory, hashlib.file_digest(file, "sha256").hexdigest().encode())
    return memory.read_text(encoding="ascii")


def finish(job: Job, path: Path | None, error: Exception | None) -> Iterator[tuple[str, Example]]:
    """The example of a job that went well; of another one the reason is written down.

    Raises:
      Exception: what is no fault of the video's, such as a full disk.
    """
    if path is not None:
        facts = json.loads(path.with_suffix(f"{path.suffix}.json").read_text(encoding="utf-8"))
        clip = asdict(Clip(path.read_bytes(), **facts))
        yield job.key, clip | dict(zip(job.heads, job.entry.labels, strict=True)) | {"path": job.entry.name}
    elif isinstance(error, TranscodeError | TimeoutError | ChildProcessError):
        _skip(job, str(error))
    elif error is not None:
        raise error


def _skip(job: Job, reason: str) -> None:
    name = hashlib.sha256(f"{job.entry.name} {job.entry.labels}".encode()).hexdigest()
    folder = job.cache / "skipped"
    folder.mkdir(exist_ok=True)
    write_json(folder / f"{name}.json", {"path": job.entry.name, "reason": reason})


def skipped(cache: Path) -> dict[str, str]:
    """Why videos were skipped, by their names, since `forget_skipped`."""
    notes = [json.loads(path.read_text(encoding="utf-8")) for path in (cache / "skipped").glob("*.json")]
    return dict(sorted((note["path"], note["reason"]) for note in notes))


def forget_skipped(cache: Path) -> None:
    for path in (cache / "skipped").glob("*.json"):
        path.unlink()


def write_skipped(path: Path, reasons: dict[str, str]) -> None:
    """A CSV `path,reason`; none where nothing was skipped."""
    path.unlink(missing_ok=True)
    if reasons:
        write_csv(path, [("path", "reason"), *reasons.items()])
