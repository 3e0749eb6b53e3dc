"""The benchmarks of both papers as TFDS builders: importing this module registers them with `tfds.builder`.

Nothing is downloaded: `manual_dir` holds the videos and annotation files as their owners distribute them. Videos may
lie in any folders under it, annotation files at most two folders deep.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from vivit_jax.data import annotation_files
from vivit_jax.data.annotations import Annotations, read
from vivit_jax.data.builder import VideoBuilder
from vivit_jax.data.sources import Listing


class Benchmark(VideoBuilder, skip_registration=True):
    """A dataset with a name, an owner, and official numbers."""

    READER: ClassVar[Callable[..., Annotations]]  # (manual_dir[, number of the official split])

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        cls.MANUAL_DOWNLOAD_INSTRUCTIONS = cls.__doc__

    def read(self, source: Path) -> Listing:
        reader = type(self).READER
        if self.builder_config:
            reader = partial(reader, number=int(self.builder_config.name.removeprefix("split_")))
        return read(source, reader)


# The owners' numbers of videos by split, as far as they are known, and of classes by head.
OFFICIAL: dict[str, tuple[dict[str, int], tuple[int, ...]]] = {
    "kinetics400": ({"train": 246_534, "validation": 19_906}, (400,)),
    "kinetics600": ({"train": 392_622, "validation": 30_000}, (600,)),
    "kinetics700": ({"train": 545_317, "validation": 35_000}, (700,)),
    "something_something_v2": ({"train": 168_913, "validation": 24_777}, (174,)),
    "epic_kitchens100": ({"train": 67_217, "validation": 9_668}, (97, 300)),
    "moments_in_time": ({"train": 802_264, "validation": 33_900}, (339,)),
    "howto100m": ({}, (1059,)),
    "diving48": ({"train": 15_027, "test": 1_970}, (48,)),
    "ucf101/split_1": ({"train": 9_537, "test": 3_783}, (101,)),
    "ucf101/split_2": ({"train": 9_586, "test": 3_734}, (101,)),
    "ucf101/split_3": ({"train": 9_624, "test": 3_696}, (101,)),
    **dict.fromkeys(("hmdb51/split_1", "hmdb51/split_2", "hmdb51/split_3"), ({"train": 3_570, "test": 1_530}, (51,))),
}
THREE_SPLITS = [
    tfds.core.BuilderConfig(name=f"split_{number}", description=f"Official split {number}.") for number in (1, 2, 3)
]


class Kinetics400(Benchmark):
    """Kinetics-400: YouTube clips of 10 seconds, 400 human actions (Kay et al. 2017, arXiv:1705.06950).

    manual_dir:
      train.csv, validate.csv (or val.csv) and, optional, test.csv: label,youtube_id,time_start,time_end[,split]
      <youtube_id>_<start>_<end>.mp4, seconds in six digits, as of the Common Visual Data Foundation
    """

    READER = staticmethod(annotation_files.kinetics)
    CITATION = "Kay et al., The Kinetics Human Action Video Dataset, arXiv:1705.06950, 2017"


class Kinetics600(Benchmark):
    """Kinetics-600: as Kinetics-400, 600 human actions (Carreira et al. 2018, arXiv:1808.01340).

    manual_dir: as of Kinetics400.
    """

    READER = staticmethod(annotation_files.kinetics)
    CITATION = "Carreira et al., A Short Note about Kinetics-600, arXiv:1808.01340, 2018"


class Kinetics700(Benchmark):
    """Kinetics-700: as Kinetics-400, 700 human actions (Carreira et al. 2019, arXiv:1907.06987).

    manual_dir: as of Kinetics400. The CSVs of the 2020 edition are read as well; its counts are others.
    """

    READER = staticmethod(annotation_files.kinetics)
    CITATION = "Carreira et al., A Short Note on the Kinetics-700 Human Action Dataset, arXiv:1907.06987, 2019"


class SomethingSomethingV2(Benchmark):
    """Something-Something v2: what hands do with things, 174 templates (Goyal et al. 2017, arXiv:1706.04261).

    manual_dir:
      something-something-v2-{train,validation,labels}.json, or {train,validation,labels}.json
      <id>.webm
    """

    READER = staticmethod(annotation_files.something_something)
    CITATION = "Goyal et al., The Something Something Video Database, ICCV 2017, arXiv:1706.04261"


class EpicKitchens100(Benchmark):
    """EPIC-Kitchens-100: segments of recordings in kitchens, a verb and a noun each (Damen et al. 2022,
    arXiv:2006.13256). Two heads, `verb` and `noun`; an action is right where both are.

    manual_dir:
      EPIC_100_{train,validation}.csv, EPIC_100_{verb,noun}_classes.csv
      <video_id>.MP4
    """

    HEADS = ("verb", "noun")
    READER = staticmethod(annotation_files.epic_kitchens)
    CITATION = "Damen et al., Rescaling Egocentric Vision, IJCV 2022, arXiv:2006.13256"


class MomentsInTime(Benchmark):
    """Moments in Time: clips of 3 seconds, 339 verbs (Monfort et al. 2019, arXiv:1801.03150).

    manual_dir:
      trainingSet.csv, validationSet.csv: <class>/<file>.mp4,<class>,...; moments_categories.txt: <class>,<number>
      training/<class>/<file>.mp4, validation/<class>/<file>.mp4
    """

    READER = staticmethod(annotation_files.moments_in_time)
    CITATION = "Monfort et al., Moments in Time Dataset, PAMI 2019, arXiv:1801.03150"


class HowTo100M(Benchmark):
    """HowTo100M's tasks of at least 100 videos: minutes long, 1,059 of them (Miech et al. 2019, arXiv:1906.03327;
    TimeSformer 4.6). The paper's partition was not published; this one goes by the video's id, in the same ratio.

    manual_dir:
      HowTo100M_v1.csv: video_id,...,task_id; task_ids.csv: <task_id> TAB <name>
      <video_id>.mp4, or .webm
    """

    name = "howto100m"
    READER = staticmethod(annotation_files.howto100m)
    CITATION = "Miech et al., HowTo100M, ICCV 2019, arXiv:1906.03327"


class Diving48(Benchmark):
    """Diving-48: competitive dives, 48 sequences of takeoff, somersaults, twists and position (Li et al. 2018).

    manual_dir:
      Diving48_V2_{train,test}.json (or Diving48_{train,test}.json), Diving48_vocab.json
      <vid_name>.mp4
    """

    READER = staticmethod(annotation_files.diving48)
    CITATION = "Li et al., RESOUND: Towards Action Recognition without Representation Bias, ECCV 2018"


class UCF101(Benchmark):
    """UCF101: YouTube videos, 101 human actions (Soomro et al. 2012, arXiv:1212.0402). Official splits as
    ucf101/split_1, split_2 and split_3.

    manual_dir:
      classInd.txt, {train,test}list{01,02,03}.txt, as in UCF101TrainTestSplits-RecognitionTask.zip
      <class>/v_<class>_g<group>_c<clip>.avi
    """

    name = "ucf101"
    READER = staticmethod(annotation_files.ucf101)
    BUILDER_CONFIGS = THREE_SPLITS
    CITATION = "Soomro et al., UCF101: A Dataset of 101 Human Actions Classes, arXiv:1212.0402, 2012"


class HMDB51(Benchmark):
    """HMDB51: film and web clips, 51 human actions (Kuehne et al. 2011). Official splits as hmdb51/split_1, split_2
    and split_3.

    manual_dir:
      <class>_test_split{1,2,3}.txt, as in test_train_splits.rar
      <class>/<name>.avi
    """

    name = "hmdb51"
    READER = staticmethod(annotation_files.hmdb51)
    BUILDER_CONFIGS = THREE_SPLITS
    CITATION = "Kuehne et al., HMDB: A Large Video Database for Human Motion Recognition, ICCV 2011"
