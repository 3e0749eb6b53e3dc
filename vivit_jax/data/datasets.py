"""TFDS datasets of encoded videos, written and read as ArrayRecord, without TensorFlow."""

import contextlib
import io
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from vivit_jax.errors import UserError

VERSION = "1.0.0"
Example = dict[str, Any]


class _Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A TFDS builder of what `write_dataset` is given."""

    VERSION = tfds.core.Version(VERSION)

    name: Any

    def __init__(self, name: str, class_names: Sequence[str], splits: Mapping[str, Iterator], **kwargs: Any):
        self.name, self._class_names, self._splits = name, class_names, splits
        super().__init__(**kwargs)

    def _info(self):
        features = tfds.features.FeaturesDict(
            {
                "video": tfds.features.Tensor(shape=(), dtype=np.object_),  # H.264 in MP4, frame i at i / fps
                "label": tfds.features.ClassLabel(names=self._class_names),
                "num_frames": tfds.features.Scalar(np.int32),
                "fps": tfds.features.Scalar(np.float32),
                "height": tfds.features.Scalar(np.int32),
                "width": tfds.features.Scalar(np.int32),
                "path": tfds.features.Text(),
            }
        )
        return tfds.core.DatasetInfo(builder=self, description="Videos ingested by vivit_jax.", features=features)

    def _split_generators(self, dl_manager):
        del dl_manager
        return dict(self._splits)

    def _generate_examples(self):
        raise AssertionError("the splits' generators are given")


def dataset_path(data_dir: str | Path, name: str) -> Path:
    return Path(data_dir).expanduser() / name / VERSION


def write_dataset(
    data_dir: str | Path, name: str, class_names: Sequence[str], splits: Mapping[str, Iterator[tuple[str, Example]]]
) -> Path:
    """Writes splits of (key, example) pairs; the dataset's folder appears when it is complete.

    Args:
      splits: examples have the features video (bytes), label (a class name), num_frames, fps, height, width, path.
    Returns:
      The dataset's folder, `data_dir/name/1.0.0`.
    """
    path = dataset_path(data_dir, name)
    builder = _Builder(name, class_names, splits, data_dir=str(Path(data_dir).expanduser()), file_format="array_record")
    tfds.disable_progress_bar()
    _remove_unfinished(path)  # of a process that was killed
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # TFDS would report a download
            builder.download_and_prepare()
    except BaseException:
        _remove_unfinished(path)
        raise
    return path


def _remove_unfinished(path: Path) -> None:
    for unfinished in path.parent.glob(f"incomplete.*_{VERSION}"):
        shutil.rmtree(unfinished, ignore_errors=True)


class VideoDataset:
    """An ingested dataset, opened for reading.

    Raises:
      UserError: there is none under that name; the message says how to ingest one.
    """

    def __init__(self, data_dir: str | Path, name: str):
        self.path = dataset_path(data_dir, name)
        if not (self.path / "dataset_info.json").exists():
            command = f"python -m vivit_jax.ingest --source=FOLDER_OR_CSV --name={name} --data_dir={data_dir}"
            raise UserError(f"config.data.name: there is no dataset at {self.path}; make one: {command}")
        self._builder = tfds.builder_from_directory(self.path)
        features: Any = self._builder.info.features
        self.class_names: tuple[str, ...] = tuple(features["label"].names)
        self.splits: dict[str, int] = {str(k): int(v.num_examples) for k, v in self._builder.info.splits.items()}

    def source(self, split: str) -> "Source":
        """Random access to the examples of a split: `label` an int, the rest as they were written.

        Raises:
          UserError: the dataset has no such split.
        """
        if split not in self.splits:
            raise UserError(f"{self.path}: there is no split {split!r}, only {', '.join(self.splits)}")
        return Source(self.path, split, self.splits[split])


class Source:
    """One split, by index; opened in each process that reads it."""

    def __init__(self, path: Path, split: str, size: int):
        self.path, self.split, self.size, self._records = path, split, size, None

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Example:
        if self._records is None:
            builder: Any = tfds.builder_from_directory(self.path)
            self._records = builder.as_data_source(self.split)
        example: Any = self._records[int(index)]
        path = example["path"]
        return {
            "video": example["video"],
            "path": path.decode() if isinstance(path, bytes) else str(path),
            "fps": float(example["fps"]),
            **{name: int(example[name]) for name in ("label", "num_frames", "height", "width")},
        }

    def __getstate__(self):
        return {**self.__dict__, "_records": None}
