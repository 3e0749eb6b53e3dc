"""The benchmarks in miniature, in their owners' layouts: ingested and read back, or refused in one line."""

import re
from pathlib import Path

import av
import numpy as np
import pytest
import tensorflow_datasets as tfds

import miniatures
import runs
from videos import decode
from vivit_jax.data import benchmarks
from vivit_jax.data.datasets import VideoDataset
from vivit_jax.errors import UserError
from vivit_jax.ingest import ingest

MAX_SKIPPED = {"howto100m": 0.96}  # of its 200 labelled videos ten are here


def originals(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def compare(dataset: VideoDataset, root: Path, expected: miniatures.Expected) -> None:
    """Splits, labels and every frame of every video."""
    assert dataset.splits == {split: len(members) for split, members in expected.items()}
    for split, members in expected.items():
        source, seen = dataset.source(split), {}
        for example in (source[index] for index in range(len(source))):
            label, names = example["label"], dataset.class_names
            several = isinstance(names, dict)
            seen[example["path"]] = (
                tuple(names[head][label[head]] for head in ("verb", "noun")) if several else names[label]
            )
            path, _, seconds = example["path"].partition("@")
            frames = originals(root / path)
            if seconds:
                start, stop = (round(25 * float(x)) for x in seconds.split("-"))
                frames = frames[start:stop]
            ours = decode(example["video"], np.arange(example["num_frames"]), frame_sizes=example["frame_sizes"])
            assert ours.shape == frames.shape
            assert np.abs(ours.astype(int) - frames).mean() < 12  # a picture that moved by a frame differs by 40
        assert seen == members


@pytest.mark.parametrize("layout", miniatures.LAYOUTS)
def test_a_miniature_is_ingested_and_read_back(layout, tmp_path, capsys):
    expected = miniatures.LAYOUTS[layout](tmp_path / "manual")
    options = dict(layout=layout, max_skipped=MAX_SKIPPED.get(layout, 0.1), num_workers=1)
    ingest(tmp_path / "manual", layout, tmp_path / "data", **options)
    dataset = VideoDataset(tmp_path / "data", layout)
    compare(dataset, tmp_path / "manual", expected)
    names = sorted({label for members in expected.values() for label in members.values()}, key=str)
    assert dataset.class_names == miniatures.CLASSES.get(layout, tuple(names))
    official, _ = benchmarks.OFFICIAL[layout]
    line = capsys.readouterr().out.splitlines()[-1]
    for split, members in expected.items():
        assert f"{split} {len(members)}" + (f" of {official[split]:,}" if split in official else "") in line


@pytest.mark.parametrize("layout", ["epic_kitchens100", "ucf101/split_2"])
def test_tfds_builds_it(layout, tmp_path):
    """As `tfds.builder` and `tfds build` do, with frames as JPEG."""
    expected = miniatures.LAYOUTS[layout](tmp_path / "manual")
    builder = tfds.builder(layout, data_dir=tmp_path / "data", storage="jpeg", num_workers=1)
    config = tfds.download.DownloadConfig(manual_dir=tmp_path / "manual")
    builder.download_and_prepare(download_config=config)
    dataset = VideoDataset(tmp_path / "data", layout)
    compare(dataset, tmp_path / "manual", expected)
    assert builder.info.citation and "manual_dir:" in builder.info.description
    assert len(dataset.source("train")[0]["frame_sizes"]) == dataset.source("train")[0]["num_frames"]


def test_the_command_of_tfds(tmp_path):
    """`tfds build`, but for its main module, which imports TensorFlow for another of its commands."""
    import simple_parsing
    from tensorflow_datasets.scripts.cli import build

    expected = miniatures.diving48(tmp_path / "manual")
    parser = simple_parsing.ArgumentParser()
    parser.add_arguments(build.Args, dest="build")
    flags = [f"--data_dir={tmp_path / 'data'}", f"--manual_dir={tmp_path / 'manual'}", "--file_format=array_record"]
    parser.parse_args(["diving48", "--imports=vivit_jax.data.benchmarks", *flags]).build.execute()
    compare(VideoDataset(tmp_path / "data", "diving48"), tmp_path / "manual", expected)


def test_official_splits_are_never_cut(tmp_path):
    """A folder without a validation split gets one; a benchmark without does not."""
    miniatures.diving48(tmp_path / "manual")
    ingest(tmp_path / "manual", "diving48", tmp_path / "data", layout="diving48", num_workers=1)
    assert VideoDataset(tmp_path / "data", "diving48").splits == {"train": 4, "test": 4}


def _without(name: str):
    def change(root: Path) -> None:
        next(root.rglob(name)).unlink()

    return change


def _replace(name: str, old: str, new: str):
    def change(root: Path) -> None:
        path = next(root.rglob(name))
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    return change


def _no_videos(root: Path) -> None:
    for path in root.rglob("*.mp4"):
        path.unlink()


FAULTS = {
    "an annotation file is missing": (
        "kinetics400", _without("validate.csv"), "should hold validate.csv or val.csv or .*; it holds annotations/, te",
    ),
    "a column": ("kinetics400", _replace("train.csv", "youtube_id", "id"), "train.csv has no column youtube_id"),
    "no JSON": ("diving48", _replace("Diving48_V2_test.json", "[", ""), "Diving48_V2_test.json is not JSON"),
    "a key": ("diving48", _replace("Diving48_V2_test.json", "vid_name", "x"), "as its owners .*KeyError: 'vid_name'"),
    "a number": ("diving48", _replace("Diving48_V2_test.json", ": 1", ": 9"), "as its owners distribute it .IndexErr"),
    "an unknown label": (
        "something_something_v2", _replace("something-something-v2-train.json", "Holding", "Hodling"),
        "no label is called 'Hodling something'",
    ),
    "no videos": ("kinetics400", _no_videos, "of 13 videos that have a label, none is under .*-id_1_000001_000011 was"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_not_as_distributed_is_one_line(fault, tmp_path):
    layout, change, message = FAULTS[fault]
    miniatures.LAYOUTS[layout](tmp_path / "manual")
    change(tmp_path / "manual")
    with pytest.raises(UserError, match=message) as caught:
        ingest(tmp_path / "manual", layout, tmp_path / "data", layout=layout, num_workers=1)
    assert "\n" not in str(caught.value) and not (tmp_path / "data").exists()


def test_layouts_are_checked(tmp_path):
    (tmp_path / "manual").mkdir()
    for layout, name, message in (
        ("kinetics40", "kinetics40", "--layout: 'kinetics40' is none of the benchmarks; did you mean 'kinetics400'?"),
        ("kinetics400", "mine", "--name: a benchmark has its own name; leave it out, or say --name=kinetics400"),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            ingest(tmp_path / "manual", name, tmp_path / "data", layout=layout)


def test_a_source_is_checked_without_writing(tmp_path):
    miniatures.kinetics(tmp_path / "manual")
    (tmp_path / "manual" / "train" / "part_0" / "-id_2_000002_000012.mp4").write_bytes(b"no video")
    before = sorted(tmp_path.rglob("*"))
    result = runs.run(
        [*runs.ingest_command(tmp_path / "manual", tmp_path / "data", "--layout=kinetics400", "--check")[:4], "--check",
         "--layout=kinetics400", "--num_workers=2"]
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert sorted(tmp_path.rglob("*")) == before
    lines = result.stdout.splitlines()
    assert "train: 4 videos, of which 3 decode, officially 246,534" in lines
    assert "label: 2 classes, officially 400" in lines and "videos of a class: 6 to 6" in lines
    assert "frames per second: 25: 11" in lines and "width x height: 64 x 48: 11" in lines
    assert any(re.match(r"seconds: 0\.3 to 0\.5, quartiles 0\.\d, 0\.\d, 0\.\d, in all 0\.00 hours", x) for x in lines)
    assert "1 do not decode:" in lines and any("-id_2_000002_000012.mp4: does not decode" in x for x in lines)
    assert lines[lines.index("1 have a label and no video:") + 1] == "  gone_000000_000010"
    assert lines[lines.index("1 have no label:") + 1] == "  train/stray_000000_000010.mp4"
