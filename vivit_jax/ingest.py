"""python -m vivit_jax.ingest --source=FOLDER_OR_CSV --name=NAME --data_dir=DIR: video files to a TFDS dataset.

--layout=kinetics400, and so on, reads a benchmark as its owners distribute it; --check only looks at the source.
"""

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from vivit_jax import errors
from vivit_jax.data import motion_files
from vivit_jax.data.builder import FolderBuilder, VideoBuilder, build
from vivit_jax.data.check import check
from vivit_jax.data.datasets import dataset_path
from vivit_jax.errors import UserError, disk_space
from vivit_jax.files import alone
from vivit_jax.schema import nearest
from vivit_jax.sections import Data


def make_builder(source: Path, name: str, data_dir: Path, layout: str, options: dict[str, Any]) -> VideoBuilder:
    """The builder of a folder or a CSV, or the one that is registered for a benchmark's layout.

    Raises:
      UserError: there is no such layout, or what was given does not go with it.
    """
    if not layout:
        return FolderBuilder(name, source, data_dir=str(data_dir), **options)
    import tensorflow_datasets as tfds

    from vivit_jax.data.benchmarks import OFFICIAL

    if layout not in OFFICIAL:
        raise UserError(f"--layout: {layout!r} is none of the benchmarks{nearest(layout, OFFICIAL)}")
    if name != layout:
        raise UserError(f"--name: a benchmark has its own name; leave it out, or say --name={layout}")
    kept = {key: value for key, value in options.items() if key not in ("validation_fraction", "seed")}
    builder: Any = tfds.builder(layout, data_dir=str(data_dir), **kept)
    return builder


def ingest(
    source: str | Path,
    name: str,
    data_dir: str | Path,
    *,
    layout: str = "",
    short_side: int = 256,
    storage: str = "h264",
    max_skipped: float = 0.05,
    validation_fraction: float = 0.2,
    seed: int = 0,
    num_workers: int | None = None,
    beam: Sequence[str] | None = None,
) -> Path:
    """Re-encodes the videos of a source and writes them as a TFDS dataset.

    Interrupted, it goes on where it stopped; complete, also once another process is done with it, it says so, and
    where the source is another now. Call it from a main module guarded by `__name__`.

    Args:
      source: a folder of class folders, a folder of train/ and validation/ (and test/) with these, or a CSV
        `path,label[,split]`; with `layout`, the benchmark's manual_dir.
      layout: a benchmark of `vivit_jax.data.benchmarks`, such as "kinetics400" or "ucf101/split_1".
      short_side: pixels that videos are reduced to, never enlarged.
      storage: "h264", or "jpeg" for hosts that are short of processors and not of disk.
      max_skipped: part of the videos that may be missing or turn out not to be videos.
      validation_fraction: part of each class that becomes the validation split, where a folder or CSV has none.
      beam: options of an Apache Beam pipeline to run on, such as ["--runner=DirectRunner", "--direct_num_workers=4"].
    Returns:
      The dataset's folder, `data_dir/name/1.0.0`; beside it `skipped.csv`, where videos were skipped.
    Raises:
      UserError: the source, the disk or too many of the files are no good; nothing that looks like a dataset is left.
    """
    source, data_dir = Path(source).expanduser(), Path(data_dir).expanduser()
    _check_arguments(name, short_side, storage, max_skipped, validation_fraction)
    options = dict(short_side=short_side, storage=storage, max_skipped=max_skipped, num_workers=num_workers)
    options |= dict(validation_fraction=validation_fraction, seed=seed)
    path = dataset_path(data_dir, name)
    builder = make_builder(source, name, data_dir, layout, options)
    if not path.exists():
        with disk_space(lambda: f"--data_dir: the disk is full at {path.parent}; free some space and start again"):
            build(builder, source, _beam_options(beam))
    if builder.made:
        _report(builder, path, layout)
        return path
    record = path / "metadata.json"
    known = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
    if any(known.get(key) != value for key, value in builder.settings.items()):
        raise UserError(f"--name: {path} exists already, made of {known}; take another name or delete {path}")
    listing = builder.read(source).digest() if source.exists() else None  # a source may be gone by now
    if listing and known.get("listing", listing) != listing:
        raise UserError(
            f"--source: {source} has changed since; delete {path} to ingest it again, or take another --name"
        )
    builder.clean()  # of a run that was killed at its very end
    print(f"{path} is complete already")
    return path


def _report(builder: VideoBuilder, path: Path, layout: str) -> None:
    from vivit_jax.data.benchmarks import OFFICIAL

    metadata: Any = builder.info.metadata
    total, skipped = metadata["videos"], metadata["skipped"]
    official, _ = OFFICIAL.get(layout, ({}, ()))
    counts = {name: split.num_examples for name, split in builder.info.splits.items()}
    counted = {name: f"{n} of {official[name]:,}" if name in official else str(n) for name, n in counts.items()}
    sizes = ", ".join(f"{name} {n}" for name, n in counted.items())
    kinds = {head: "classes" if head == "label" else f"{head}s" for head in builder.listed.classes}
    classes = ", ".join(f"{len(names)} {kinds[head]}" for head, names in builder.listed.classes.items())
    where = f" ({skipped} skipped, see {path.parent / 'skipped.csv'})" if skipped else ""
    print(f"Ingested {total - skipped} of {total} videos{where}: {sizes}, {classes} -> {path}")


def _beam_options(flags: Sequence[str] | None) -> Any:
    if flags is None:
        return None
    try:
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise UserError("--beam: needs Apache Beam: pip install vivit_jax[beam]") from error
    return PipelineOptions(list(flags))


def _check_arguments(name: str, short_side: int, storage: str, max_skipped: float, validation_fraction: float) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9_]*(/[a-z0-9_]+)?", name):
        raise UserError(f"--name: {name!r} should be lower-case letters, digits and _, as in my_videos")
    if short_side < 16:
        raise UserError(f"--short_side: {short_side} pixels is below 16")
    if storage not in ("h264", "jpeg"):
        raise UserError(f"--storage: {storage!r} is none of h264, jpeg")
    if not 0 <= max_skipped <= 1:
        raise UserError(f"--max_skipped: {max_skipped} is not between 0 and 1")
    if not 0 < validation_fraction < 1:
        raise UserError(f"--validation_fraction: {validation_fraction} is not above 0 and below 1")


def ensure(data: Data) -> None:
    """Renders and ingests the dataset of a configuration that has a generator, where it is not there yet."""
    if not data.generator or dataset_path(data.data_dir, data.name).exists():
        return
    videos = Path(data.data_dir).expanduser() / f"{data.name}_videos"
    full = disk_space(lambda: f"config.data.data_dir: the disk is full at {videos}; free some space and start again")
    with alone(videos.with_name(f"{videos.name}.lock")):
        if not videos.exists():
            print(f"Rendering the demonstration videos into {videos}")
            with full:
                motion_files.generate(videos)
        ingest(videos, data.name, data.data_dir)


def main(argv) -> None:
    if len(argv) > 1:
        raise UserError(f"{argv[1]!r}: flags start with --")
    values = flags.FLAGS.flag_values_dict()
    name = values["name"] or values["layout"]
    required = {"source": values["source"]}
    required |= {} if values["check"] else {"name": name, "data_dir": values["data_dir"]}
    if missing := [f"--{key}" for key, value in required.items() if not value]:
        raise UserError(f"{' and '.join(missing)} missing, as in --source=videos --name=mine --data_dir=data")
    if values["check"]:
        _check(Path(values["source"]).expanduser(), values["layout"], values["num_workers"])
        return
    options = ("layout", "short_side", "storage", "max_skipped", "validation_fraction", "seed", "num_workers", "beam")
    ingest(values["source"], name, values["data_dir"], **{key: values[key] for key in options})


def _check(source: Path, layout: str, num_workers: int | None) -> None:
    from vivit_jax.data.benchmarks import OFFICIAL

    listing = make_builder(source, layout or "checked", Path("."), layout, {}).read(source)
    for line in check(listing, *OFFICIAL.get(layout, ({}, ())), num_workers or os.cpu_count() or 1):
        print(line)


def define_flags() -> None:
    flags.DEFINE_string("source", None, "A folder of class folders, or a CSV path,label[,split].")
    flags.DEFINE_string("name", None, "What the dataset will be called.")
    flags.DEFINE_string("data_dir", None, "Where datasets live.")
    flags.DEFINE_string("layout", "", "A benchmark, as its owners distribute it: kinetics400, ucf101/split_1, ...")
    flags.DEFINE_bool("check", False, "Only look at the source: decode every video, write nothing.")
    flags.DEFINE_integer("short_side", 256, "Pixels that the short side is reduced to.")
    flags.DEFINE_string("storage", "h264", "h264, or jpeg: more bytes, less work to decode.")
    flags.DEFINE_float("max_skipped", 0.05, "Part of the videos that may be missing or unusable.")
    flags.DEFINE_float("validation_fraction", 0.2, "Part of each class held out, where the source has no such split.")
    flags.DEFINE_integer("seed", 0, "Of that split.", lower_bound=0)
    flags.DEFINE_integer("num_workers", None, "Processes; as many as cores by default.", lower_bound=1)
    flags.DEFINE_multi_string("beam", None, "An option of an Apache Beam pipeline to run on; may be repeated.")


if __name__ == "__main__":
    define_flags()
    errors.run(main)
