"""The ingest command, on real files, in real processes."""

import csv
import json
import shutil
import signal
import subprocess
import time

import av
import numpy as np
import pytest

import runs
import videos
from videos import decode
from vivit_jax.data.datasets import VideoDataset
from vivit_jax.errors import UserError
from vivit_jax.ingest import ingest


def examples(dataset: VideoDataset, split: str) -> list[dict]:
    source = dataset.source(split)
    return [source[index] for index in range(len(source))]


def test_a_folder_becomes_a_dataset(tmp_path, capsys):
    source = videos.folder(tmp_path / "videos", {"run fast": 5, "jump, höher": 10})
    (source / "LICENSE").write_text("free")
    (source / "run fast" / "notes.txt").write_text("not a video")
    path = ingest(source, "mine", tmp_path / "data", num_workers=2)
    assert path == tmp_path / "data" / "mine" / "1.0.0"
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"Ingested 15 of 15 videos: train 12, validation 3, 2 classes -> {path}"
    )
    dataset = VideoDataset(tmp_path / "data", "mine")
    assert dataset.class_names == ("jump, höher", "run fast") and dataset.splits == {"train": 12, "validation": 3}
    held_out = [dataset.class_names[example["label"]] for example in examples(dataset, "validation")]
    assert sorted(held_out) == ["jump, höher"] * 2 + ["run fast"]  # a fifth of each class
    for split in dataset.splits:
        for example in examples(dataset, split):
            label, name = example["path"].split("/")
            assert dataset.class_names[example["label"]] == label
            assert example["num_frames"] == 8 + int(name.removesuffix(".mp4")) % 5 and example["fps"] == 25
            frames = decode(example["video"], np.arange(example["num_frames"]))
            with av.open(str(source / example["path"])) as container:
                originals = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
            assert np.abs(frames.astype(int) - np.stack(originals)).mean() < 8
    assert sorted(path.name for path in (tmp_path / "data" / "mine").iterdir()) == ["1.0.0"]


def test_the_split_depends_on_the_seed_alone(tmp_path):
    source = videos.folder(tmp_path / "videos", {"a": 8, "b": 6})
    paths = []
    for name, seed, workers in (("one", 0, 1), ("two", 0, 3), ("three", 1, 2)):
        ingest(source, name, tmp_path / "data", seed=seed, num_workers=workers, validation_fraction=0.5)
        held_out = examples(VideoDataset(tmp_path / "data", name), "validation")
        paths.append(sorted(example["path"] for example in held_out))
        assert [sum(p.startswith(label) for p in paths[-1]) for label in "ab"] == [4, 3]
    assert paths[0] == paths[1] != paths[2]


def test_split_folders_and_csv_keep_their_splits(tmp_path):
    for split in ("Train", "val", "test"):
        videos.folder(tmp_path / "videos" / split, {"a": 2, "b": 2})
    ingest(tmp_path / "videos", "folders", tmp_path / "data", num_workers=1)
    assert VideoDataset(tmp_path / "data", "folders").splits == {"train": 4, "validation": 4, "test": 4}
    rows = [("path", "label", "split")]
    rows += [(f"Train/{label}/{i}.mp4", f"class {label}", "TRAIN") for label in "ab" for i in range(2)]
    rows += [(tmp_path / f"videos/val/{label}/0.mp4", f"class {label}", "validation") for label in "ab"]
    with (tmp_path / "videos" / "list.csv").open("w", newline="") as lines:
        csv.writer(lines).writerows(rows)
    ingest(tmp_path / "videos" / "list.csv", "table", tmp_path / "data", num_workers=1)
    dataset = VideoDataset(tmp_path / "data", "table")
    assert dataset.splits == {"train": 4, "validation": 2} and dataset.class_names == ("class a", "class b")


def test_bad_files_are_listed_counted_and_limited(tmp_path):
    source = videos.folder(tmp_path / "videos", {"a": 6, "b": 6})
    (source / "a" / "text.mp4").write_text("hello")
    videos.truncate(videos.write(source / "a" / "cut.mp4"))
    videos.write_audio(source / "b" / "sound.mp4")
    videos.write(source / "b" / "still.mp4", num_frames=1)
    result = runs.run(runs.ingest_command(source, tmp_path / "data"))
    assert "--max_skipped: 4 of 16 videos cannot be used (a/cut.mp4: does not decode" in runs.error_line(result)
    root = tmp_path / "data" / "mine"
    assert not (root / "1.0.0").exists() and not list(root.glob("*incomplete*"))
    result = runs.run(runs.ingest_command(source, tmp_path / "data", "--max_skipped=0.3"))
    assert result.returncode == 0, result.stderr
    expected = f"Ingested 12 of 16 videos (4 skipped, see {root / 'skipped.csv'}): train 9, validation 3, 2 classes"
    assert result.stdout.splitlines()[-1].startswith(expected)
    with (root / "skipped.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [row["path"] for row in rows] == ["a/cut.mp4", "a/text.mp4", "b/sound.mp4", "b/still.mp4"]
    assert [row["reason"] for row in rows][2:] == ["no video stream", "a single frame"]


def test_killed_it_goes_on_where_it_stopped(tmp_path):
    source = videos.folder(tmp_path / "videos", {"a": 20, "b": 20})
    cache = tmp_path / "data" / "mine" / "cache"
    process = subprocess.Popen(
        runs.ingest_command(source, tmp_path / "data", "--num_workers=1"),
        cwd=runs.REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while len(list(cache.glob("*.h264"))) < 5 and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(0.5)  # its worker ends with it
    before = {path.name: path.stat().st_mtime_ns for path in cache.glob("*.h264")}
    assert 5 <= len(before) < 40
    time.sleep(0.3)
    assert {path.name for path in cache.glob("*.h264")} == before.keys()
    (cache / "torn.h264.1.tmp").write_bytes(b"half a clip")
    # Fails after re-encoding, on purpose, so that the cache can be looked at.
    (source / "a" / "zz.mp4").write_text("hello")
    assert runs.run(runs.ingest_command(source, tmp_path / "data", "--max_skipped=0")).returncode == 1
    after = {path.name: path.stat().st_mtime_ns for path in cache.glob("*.h264")}
    assert not list(cache.glob("*.tmp")), "of the process that was killed"
    assert len(after) == 40 and all(after[name] == when for name, when in before.items())
    assert runs.run(runs.ingest_command(source, tmp_path / "data")).returncode == 0
    assert not cache.exists() and sum(VideoDataset(tmp_path / "data", "mine").splits.values()) == 40


def test_complete_it_says_so_and_refuses_to_be_something_else(tmp_path, capsys):
    source = videos.folder(tmp_path / "videos", {"a": 2, "b": 2})
    path = ingest(source, "mine", tmp_path / "data", num_workers=1)
    before = {p: p.stat().st_mtime_ns for p in path.rglob("*")}
    assert ingest(source, "mine", tmp_path / "data") == path
    assert capsys.readouterr().out.splitlines()[-1] == f"{path} is complete already"
    with pytest.raises(UserError, match="exists already, made of"):
        ingest(source, "mine", tmp_path / "data", short_side=128)
    videos.folder(source, {"c": 2})
    with pytest.raises(
        UserError, match=r"has changed since; delete .*/mine/1\.0\.0 to ingest it again, or take another"
    ):
        ingest(source, "mine", tmp_path / "data")
    shutil.rmtree(source)
    assert ingest(source, "mine", tmp_path / "data") == path
    (path / "metadata.json").rename(tmp_path / "metadata.json")  # as an earlier version left it
    with pytest.raises(UserError, match=r"exists already, made of \{\}"):
        ingest(source, "mine", tmp_path / "data")
    (tmp_path / "metadata.json").rename(path / "metadata.json")
    assert before == {p: p.stat().st_mtime_ns for p in path.rglob("*")}


def test_the_same_content_twice_is_two_videos(tmp_path):
    source = videos.folder(tmp_path / "videos", {"a": 2, "b": 2})
    for label in "ab":
        (source / label / "same.mp4").write_bytes((source / "a" / "0.mp4").read_bytes())
    ingest(source, "mine", tmp_path / "data", num_workers=2)
    assert sum(VideoDataset(tmp_path / "data", "mine").splits.values()) == 6


def test_a_dataset_of_an_earlier_version_is_said(tmp_path):
    source = videos.folder(tmp_path / "videos", {"a": 2, "b": 2})
    path = ingest(source, "mine", tmp_path / "data", num_workers=1)
    features = json.loads((path / "features.json").read_text())
    del features["featuresDict"]["features"]["frame_sizes"]
    (path / "features.json").write_text(json.dumps(features))
    with pytest.raises(UserError, match="is of an earlier version; delete it and ingest it again"):
        VideoDataset(tmp_path / "data", "mine")
