"""Ingested datasets, opened for reading."""

from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from vivit_jax.architecture import Labels
from vivit_jax.data.clips import Example
from vivit_jax.errors import UserError
from vivit_jax.sections import Data

VERSION = "1.0.0"
HEAD = "label"  # of a dataset that has a single one


def dataset_path(data_dir: str | Path, name: str) -> Path:
    return Path(data_dir).expanduser() / name / VERSION


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
        if "frame_sizes" not in features:
            raise UserError(f"config.data.name: {self.path} is of an earlier version; delete it and ingest it again")
        classes = {
            head: tuple(feature.names)
            for head, feature in features.items()
            if isinstance(feature, tfds.features.ClassLabel)
        }
        self.class_names: Labels = classes[HEAD] if classes.keys() == {HEAD} else classes
        self.splits: dict[str, int] = {str(k): int(v.num_examples) for k, v in self._builder.info.splits.items()}

    @property
    def num_classes(self) -> int | dict[str, int]:
        """By head where there are several."""
        names = self.class_names
        return {head: len(of) for head, of in names.items()} if isinstance(names, dict) else len(names)

    def source(self, split: str) -> "Source":
        """Random access to the examples of a split: labels are ints, the rest as it was written.

        Raises:
          UserError: the dataset has no such split.
        """
        if split not in self.splits:
            raise UserError(
                f"{self.path}: there is no split {split!r}, only {', '.join(self.splits)}; config.data.train_split and "
                "config.evaluation.splits name them"
            )
        heads = tuple(self.class_names) if isinstance(self.class_names, dict) else (HEAD,)
        return Source(self.path, split, self.splits[split], heads)


def known_classes(data: Data) -> int | dict[str, int] | None:
    """A configuration's dataset's, where it is there."""
    try:
        return VideoDataset(data.data_dir, data.name).num_classes
    except UserError:
        return None


class Source:
    """One split, by index; opened in each process that reads it."""

    def __init__(self, path: Path, split: str, size: int, heads: tuple[str, ...]):
        self.path, self.split, self.size, self.heads, self._records = path, split, size, heads, None

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Example:
        if self._records is None:
            builder: Any = tfds.builder_from_directory(self.path)
            self._records = builder.as_data_source(self.split)
        example: Any = self._records[int(index)]
        path = example["path"]
        labels = {head: int(example[head]) for head in self.heads}
        return {
            "video": example["video"],
            "frame_sizes": tuple(int(size) for size in example["frame_sizes"]),
            "path": path.decode() if isinstance(path, bytes) else str(path),
            "fps": float(example["fps"]),
            "label": labels if self.heads != (HEAD,) else labels[HEAD],
            **{name: int(example[name]) for name in ("num_frames", "height", "width")},
        }

    def __getstate__(self):
        return {**self.__dict__, "_records": None}
