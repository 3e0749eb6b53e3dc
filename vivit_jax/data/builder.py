"""The TFDS builder of every dataset: videos re-encoded once and written as ArrayRecord, here or on Apache Beam."""

import abc
import contextlib
import inspect
import io
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import tensorflow_datasets as tfds

from vivit_jax.data import clips, workers
from vivit_jax.data.clips import Example, Job
from vivit_jax.data.datasets import HEAD, VERSION
from vivit_jax.data.sources import Entry, Listing, check_classes, hold_out, read_source
from vivit_jax.data.transcode import Storage
from vivit_jax.errors import UserError
from vivit_jax.files import alone
from vivit_jax.progress import progress


class VideoBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """What a subclass adds is where its videos and labels come from."""

    VERSION = tfds.core.Version(VERSION)
    HEADS: ClassVar[tuple[str, ...]] = (HEAD,)
    CITATION: ClassVar[str] = ""

    name: Any

    def __init__(
        self,
        *,
        short_side: int = 256,
        storage: Storage = "h264",
        max_skipped: float = 0.05,
        num_workers: int | None = None,
        **kwargs: Any,
    ):
        """Beside what every TFDS builder takes:

        Args:
          short_side: pixels that videos are reduced to, never enlarged.
          storage: "h264", or "jpeg": more bytes, less work to decode.
          max_skipped: part of the videos that may be missing or turn out not to decode.
          num_workers: processes on this machine, as many as cores by default; Beam has its own.
        """
        self.settings = {"short_side": short_side, "storage": storage}
        self.max_skipped, self.num_workers = max_skipped, num_workers or os.cpu_count() or 1
        self.on_beam, self.listed, self.made = False, Listing([], {}), False
        self.running = contextlib.ExitStack()  # workers, which an error ends before what they were writing is removed
        super().__init__(**{"file_format": "array_record", **kwargs})

    @abc.abstractmethod
    def read(self, source: Path) -> Listing:
        """The videos and labels of a source: of a benchmark, its manual_dir."""

    def splits_of(self, listing: Listing) -> dict[str, list[Entry]]:
        """Entries by split."""
        names = Counter(entry.split or "train" for entry in listing.entries)
        return {name: [entry for entry in listing.entries if (entry.split or "train") == name] for name in names}

    def check_written(self, written: list[Entry]) -> None:
        """Raises UserError where what could be used is not enough."""

    @property
    def cache(self) -> Path:
        """Clips that are ready, until the dataset is."""
        return Path(self.data_path).parent / "cache"

    def _info(self):
        features = {
            "video": tfds.features.Tensor(shape=(), dtype=np.object_),  # H.264 in MP4, frame i at i / fps; or JPEGs
            "frame_sizes": tfds.features.Sequence(tfds.features.Scalar(np.int32)),  # bytes of each JPEG frame
            "num_frames": tfds.features.Scalar(np.int32),
            "fps": tfds.features.Scalar(np.float32),
            "height": tfds.features.Scalar(np.int32),
            "width": tfds.features.Scalar(np.int32),
            "path": tfds.features.Text(),
        }
        heads = {head: tfds.features.ClassLabel() for head in self.HEADS}  # names are read with the videos
        return tfds.core.DatasetInfo(
            builder=self,
            description=inspect.cleandoc(type(self).__doc__ or ""),
            citation=self.CITATION,
            features=tfds.features.FeaturesDict(features | heads),
            metadata=tfds.core.MetadataDict(),
        )

    def download_and_prepare(self, *args: Any, **kwargs: Any) -> None:
        """As TFDS has it; while another process makes the same dataset, it waits, and then takes that one.

        Interrupted, it goes on where it stopped; a Beam runner in `download_config` runs it there.

        Raises:
          UserError: the source, or too many of its videos, are no good; nothing that looks like a dataset is left.
        """
        with alone(self.cache.parent / "lock"):
            self._remove_unfinished()  # of a process that was killed
            try:
                with self.running:
                    super().download_and_prepare(*args, **kwargs)
            finally:
                self._remove_unfinished()
            self.clean()
        if not self.made:
            self.info.read_from_directory(self.data_path)

    def clean(self) -> None:
        """Removes what a complete dataset does not need."""
        shutil.rmtree(self.cache, ignore_errors=True)

    def _remove_unfinished(self) -> None:
        """Clips that are whole stay."""
        for unfinished in Path(self.data_path).parent.glob(f"incomplete.*_{VERSION}"):
            shutil.rmtree(unfinished, ignore_errors=True)
        for unfinished in self.cache.glob("*.tmp"):
            unfinished.unlink(missing_ok=True)

    def _download_and_prepare(self, dl_manager, download_config=None):
        self.on_beam = bool(download_config and (download_config.beam_runner or download_config.beam_options))
        self.cache.mkdir(parents=True, exist_ok=True)
        clips.forget_skipped(self.cache)
        super()._download_and_prepare(dl_manager, download_config)
        lost = dict.fromkeys(self.listed.missing, "no such file") | clips.skipped(self.cache)
        path = self.cache.parent / "skipped.csv"
        clips.write_skipped(path, lost)
        total, listing = len(self.listed.entries) + len(self.listed.missing), self.listed.digest()
        if len(lost) > self.max_skipped * total:
            first, reason = min(lost.items())
            raise UserError(
                f"--max_skipped: {len(lost)} of {total} videos cannot be used ({first}: {reason}; all are in {path}); "
                f"above {self.max_skipped:.0%} is an error, --max_skipped={len(lost) / total + 0.005:.2f} would go on"
            )
        self.check_written([entry for entry in self.listed.entries if entry.name not in lost])
        cast(Any, self.info.metadata).update(self.settings, videos=total, skipped=len(lost), listing=listing)
        self.made = True

    def _split_generators(self, dl_manager):
        if not self.listed.entries:
            self.listed = self.read(Path(dl_manager.manual_dir))
        features: Any = self.info.features
        for head, names in self.listed.classes.items():
            features[head].names = list(names)
        return {
            split: self._generate_examples(split, entries) for split, entries in self.splits_of(self.listed).items()
        }

    def _generate_examples(self, split: str, entries: Sequence[Entry]):
        encoding = self.settings["short_side"], self.settings["storage"]
        jobs = [
            Job(f"{index:08d}", entry, self.HEADS, self.cache, *encoding)
            for index, entry in enumerate(sorted(entries, key=lambda entry: (entry.name, entry.labels)))
        ]
        if self.on_beam:
            from vivit_jax.data import beam  # an extra

            return beam.examples(jobs)
        return self._here(split, jobs)

    def _here(self, split: str, jobs: list[Job]) -> Iterator[tuple[str, Example]]:
        results = workers.run(clips.encode, jobs, self.num_workers, clips.TIME_LIMIT)
        self.running.enter_context(contextlib.closing(results))
        for job, path, error in progress(results, split, len(jobs), "videos"):
            yield from clips.finish(job, path, error)


class FolderBuilder(VideoBuilder, skip_registration=True):
    """Videos ingested from a folder or a CSV."""

    def __init__(self, name: str, source: Path, *, validation_fraction: float = 0.2, seed: int = 0, **kwargs: Any):
        self.name, self.fraction, self.seed = name, validation_fraction, seed
        super().__init__(**kwargs)
        self.settings |= {"source": str(source.resolve()), "seed": seed, "split": validation_fraction}

    def read(self, source: Path) -> Listing:
        listing = read_source(source)
        check_classes(listing.entries, listing.classes[HEAD], "")
        return listing

    def splits_of(self, listing: Listing) -> dict[str, list[Entry]]:
        return hold_out(listing.entries, self.fraction, self.seed)

    def check_written(self, written: list[Entry]) -> None:
        check_classes(written, self.listed.classes[HEAD], " that decodes")


def build(builder: VideoBuilder, source: Path, beam: Any = None) -> None:
    """Prepares a dataset from `source`, on the Beam pipeline that `beam` has the options of, where it is given."""
    builder.listed = builder.read(source)
    tfds.disable_progress_bar()
    config = tfds.download.DownloadConfig(beam_options=beam)
    with contextlib.redirect_stdout(io.StringIO()):  # TFDS would report a download
        builder.download_and_prepare(download_config=config, download_dir=builder.cache / "downloads")
