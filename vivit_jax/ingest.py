"""python -m vivit_jax.ingest --source=FOLDER_OR_CSV --name=NAME --data_dir=DIR: video files to a TFDS dataset."""

import csv
import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from absl import flags
from tqdm import tqdm

from vivit_jax import errors
from vivit_jax.config import Data
from vivit_jax.data import motion_files, workers
from vivit_jax.data.datasets import Example, dataset_path, write_dataset
from vivit_jax.data.sources import Entry, check_classes, read_source, split_entries
from vivit_jax.data.transcode import Clip, TranscodeError, transcode
from vivit_jax.errors import UserError, disk_space
from vivit_jax.files import write_bytes, write_json

TIME_LIMIT = 900.0  # seconds for one file


@dataclass(frozen=True)
class _Job:
    """Re-encodes one file into the cache."""

    entry: Entry
    cache: Path
    short_side: int


def _transcode_once(job: _Job) -> Path:
    """The cached clip of a job; a clip is known by its content and by how it is encoded."""
    with job.entry.path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    path = job.cache / f"{digest}-{job.short_side}.mp4"
    if not path.exists():
        clip = transcode(job.entry.path, job.short_side)
        facts = asdict(clip)
        video = facts.pop("video")
        write_json(path.with_suffix(".json"), facts)
        write_bytes(path, video)  # last: it says that the clip is complete
    return path


def _cached(path: Path) -> Clip:
    return Clip(path.read_bytes(), **json.loads(path.with_suffix(".json").read_text(encoding="utf-8")))


def ingest(
    source: str | Path,
    name: str,
    data_dir: str | Path,
    *,
    short_side: int = 256,
    max_skipped: float = 0.05,
    validation_fraction: float = 0.2,
    seed: int = 0,
    num_workers: int | None = None,
) -> Path:
    """Re-encodes the videos of a folder or a CSV and writes them as a TFDS dataset.

    Interrupted, it goes on where it stopped; complete, it says so. Call it from a main module guarded by `__name__`.

    Args:
      source: a folder of class folders, a folder of train/ and validation/ (and test/) with these, or a CSV
        `path,label[,split]`.
      short_side: pixels that videos are reduced to, never enlarged.
      max_skipped: part of the files that may turn out not to be videos.
      validation_fraction: part of each class that becomes the validation split, where the source has none.
    Returns:
      The dataset's folder, `data_dir/name/1.0.0`; beside it `skipped.csv`, where files were skipped.
    Raises:
      UserError: the source, the disk or too many of the files are no good; nothing that looks like a dataset is left.
    """
    source, root = Path(source).expanduser(), Path(data_dir).expanduser() / name
    _check_arguments(name, short_side, max_skipped, validation_fraction)
    settings = dict(source=str(source.resolve()), short_side=short_side, seed=seed, split=validation_fraction)
    path, record = dataset_path(data_dir, name), root / "ingest.json"
    if path.exists():
        known = json.loads(record.read_text(encoding="utf-8")) if record.exists() else None
        if known != settings:
            raise UserError(f"--name: {path} exists already, made of {known}; take another name or delete {root}")
        shutil.rmtree(root / "cache", ignore_errors=True)  # of a run that was killed at its very end
        print(f"{path} is complete already")
        return path
    entries = read_source(source)
    check_classes(entries, {entry.label for entry in entries}, "")
    with disk_space(lambda: f"--data_dir: the disk is full at {root}; free some space and start again"):
        cache = root / "cache"
        cache.mkdir(parents=True, exist_ok=True)
        clips, skipped = _transcode_all(entries, cache, short_side, num_workers or os.cpu_count() or 1)
        _report_skipped(root, skipped, len(entries), max_skipped)
        classes = sorted({entry.label for entry in entries})
        check_classes(clips, classes, " that decodes")
        splits = split_entries(clips, validation_fraction, seed)
        write_json(record, settings)
        write_dataset(data_dir, name, classes, {k: _examples(v, clips) for k, v in splits.items()})
    shutil.rmtree(cache)
    sizes = ", ".join(f"{split} {len(members)}" for split, members in splits.items())
    where = f" ({len(skipped)} skipped, see {root / 'skipped.csv'})" if skipped else ""
    print(f"Ingested {len(clips)} of {len(entries)} videos{where}: {sizes}, {len(classes)} classes -> {path}")
    return path


def _check_arguments(name: str, short_side: int, max_skipped: float, validation_fraction: float) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise UserError(f"--name: {name!r} should be lower-case letters, digits and _, as in my_videos")
    if short_side < 16:
        raise UserError(f"--short_side: {short_side} pixels is below 16")
    if not 0 <= max_skipped <= 1:
        raise UserError(f"--max_skipped: {max_skipped} is not between 0 and 1")
    if not 0 < validation_fraction < 1:
        raise UserError(f"--validation_fraction: {validation_fraction} is not above 0 and below 1")


def _transcode_all(entries, cache: Path, short_side: int, num_workers: int) -> tuple[dict[Entry, Path], dict[str, str]]:
    """The cached clip of each entry, and why the others have none."""
    clips, skipped = {}, {}
    jobs = [_Job(entry, cache, short_side) for entry in entries]
    results = workers.run(_transcode_once, jobs, num_workers, TIME_LIMIT)
    for job, path, error in tqdm(results, desc="ingest", total=len(jobs), unit="video", mininterval=0.5):
        if error is None:
            clips[job.entry] = path
        elif isinstance(error, TranscodeError | TimeoutError | ChildProcessError):
            skipped[job.entry.name] = str(error)
        elif isinstance(error, PermissionError | FileNotFoundError):
            skipped[job.entry.name] = error.strerror or str(error)
        else:
            raise error
    return {entry: clips[entry] for entry in entries if entry in clips}, dict(sorted(skipped.items()))


def _report_skipped(root: Path, skipped: dict[str, str], total: int, max_skipped: float) -> None:
    path = root / "skipped.csv"
    path.unlink(missing_ok=True)
    if not skipped:
        return
    table = io.StringIO(newline="")
    csv.writer(table).writerows([("path", "reason"), *skipped.items()])
    write_bytes(path, table.getvalue().encode())
    if len(skipped) > max_skipped * total:
        first, reason = next(iter(skipped.items()))
        raise UserError(
            f"--max_skipped: {len(skipped)} of {total} videos cannot be used ({first}: {reason}; all are in {path}); "
            f"more than {max_skipped:.0%} is an error, --max_skipped={len(skipped) / total + 0.005:.2f} would go on"
        )


def _examples(entries: list[Entry], clips: dict[Entry, Path]) -> Iterator[tuple[str, Example]]:
    by_name = {(entry.name, entry.label): path for entry, path in clips.items()}
    for index, entry in enumerate(entries):
        facts: dict[str, Any] = asdict(_cached(by_name[entry.name, entry.label]))
        yield f"{index:08d}", facts | {"label": entry.label, "path": entry.name}


def ensure(data: Data) -> None:
    """Renders and ingests the dataset of a configuration that has a generator, where it is not there yet."""
    if not data.generator or dataset_path(data.data_dir, data.name).exists():
        return
    videos = Path(data.data_dir).expanduser() / f"{data.name}_videos"
    if not videos.exists():
        print(f"Rendering the demonstration videos into {videos}")
        with disk_space(lambda: f"config.data.data_dir: the disk is full at {videos}; free some space and start again"):
            motion_files.generate(videos)
    ingest(videos, data.name, data.data_dir)


def main(argv) -> None:
    if len(argv) > 1:
        raise UserError(f"{argv[1]!r}: flags start with --")
    values = flags.FLAGS.flag_values_dict()
    required = {key: values[key] for key in ("source", "name", "data_dir")}
    if missing := [f"--{key}" for key, value in required.items() if not value]:
        raise UserError(f"{' and '.join(missing)} missing, as in --source=videos --name=mine --data_dir=data")
    options = ("short_side", "max_skipped", "validation_fraction", "seed", "num_workers")
    ingest(**required, **{key: values[key] for key in options})


def _define_flags() -> None:
    flags.DEFINE_string("source", None, "A folder of class folders, or a CSV path,label[,split].")
    flags.DEFINE_string("name", None, "What the dataset will be called.")
    flags.DEFINE_string("data_dir", None, "Where datasets live.")
    flags.DEFINE_integer("short_side", 256, "Pixels that the short side is reduced to.")
    flags.DEFINE_float("max_skipped", 0.05, "Part of the files that may be unusable.")
    flags.DEFINE_float(
        "validation_fraction", 0.2, "Part of each class held out, where the source has no validation split."
    )
    flags.DEFINE_integer("seed", 0, "Of that split.")
    flags.DEFINE_integer("num_workers", None, "Processes; as many as cores by default.", lower_bound=1)


if __name__ == "__main__":
    _define_flags()
    errors.run(main)
