"""The ingest command, on real files, in real processes."""

import csv
import json
import resource
import signal
import subprocess
import sys
import time

import av
import numpy as np
import pytest

import runs
import videos
from vivit_jax.data.datasets import VideoDataset
from vivit_jax.data.decode import decode
from vivit_jax.errors import UserError
from vivit_jax.ingest import ingest


def command(source, data_dir, *flags):
    program = [sys.executable, "-m", "vivit_jax.ingest"]
    return [*program, f"--source={source}", "--name=mine", f"--data_dir={data_dir}", *flags]


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
    assert sorted(path.name for path in (tmp_path / "data" / "mine").iterdir()) == ["1.0.0", "ingest.json"]


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
    for split in ("train", "val", "test"):
        videos.folder(tmp_path / "videos" / split, {"a": 2, "b": 2})
    ingest(tmp_path / "videos", "folders", tmp_path / "data", num_workers=1)
    assert VideoDataset(tmp_path / "data", "folders").splits == {"train": 4, "validation": 4, "test": 4}
    rows = [("path", "label", "split")]
    rows += [(f"train/{label}/{i}.mp4", f"class {label}", "train") for label in "ab" for i in range(2)]
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
    result = runs.run(command(source, tmp_path / "data"))
    assert "--max_skipped: 4 of 16 videos cannot be used (a/cut.mp4: does not decode" in runs.error_line(result)
    root = tmp_path / "data" / "mine"
    assert not (root / "1.0.0").exists() and not list(root.glob("*incomplete*"))
    result = runs.run(command(source, tmp_path / "data", "--max_skipped=0.3"))
    assert result.returncode == 0, result.stderr
    expected = f"Ingested 12 of 16 videos (4 skipped, see {root / 'skipped.csv'}): train 10, validation 2, 2 classes"
    assert result.stdout.splitlines()[-1].startswith(expected)
    with (root / "skipped.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [row["path"] for row in rows] == ["a/cut.mp4", "a/text.mp4", "b/sound.mp4", "b/still.mp4"]
    assert [row["reason"] for row in rows][2:] == ["no video stream", "a single frame"]


def _table(path, text):
    path.mkdir()
    (path / "list.csv").write_text(text)
    return path / "list.csv"


BAD = {
    "nothing there": (lambda p: p / "nowhere", "--source: .*nowhere does not exist"),
    "a file": (lambda p: videos.write(p / "a.mp4"), "is neither a folder nor a .csv file"),
    "empty folder": (lambda p: p.mkdir() or p, "should hold one folder of videos per class.*it holds no folder"),
    "loose videos": (lambda p: videos.write(p / "a.mp4").parent, "per class.*1 videos and no folder"),
    "no videos": (lambda p: (p / "a").mkdir(parents=True) or p, "no video .* was found in its folders"),
    "an empty class": (lambda p: (videos.folder(p, {"a": 2}) / "b").mkdir() or p, "no video in the class b"),
    "one video": (lambda p: videos.folder(p, {"a": 3, "b": 1}), "the class 'b' has a single video to train on"),
    "columns": (lambda p: _table(p, "file,label\na,b\n"), "has no column path"),
    "no rows": (lambda p: _table(p, "path,label\n"), "names no videos"),
    "missing files": (lambda p: _table(p, "path,label\nx.mp4,a\ny.mp4,a\n"), "2 of 2 files .* missing: x.mp4, y.mp4"),
    "split": (lambda p: _table(p, "path,label,split\nx.mp4,a,dev\n"), "line 2 of .*: split 'dev' is none of"),
    "outside": (lambda p: _table(p, "path,label\n../../x.mp4,a\n"), "lies outside of"),
    "no label": (lambda p: _table(p, "path,label\nx.mp4,\n"), "line 2 of .* has no label"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_sources_are_one_line(tmp_path, case):
    make, message = BAD[case]
    with pytest.raises(UserError, match=message) as caught:
        ingest(make(tmp_path / "source"), "mine", tmp_path / "data", num_workers=1)
    assert "\n" not in str(caught.value) and not (tmp_path / "data").exists()


def test_bad_flags_are_one_line(tmp_path):
    for flags, message in (
        ([], "--source and --name and --data_dir missing"),
        (["--source=x", "--name=My Videos", "--data_dir=y"], "--name: 'My Videos' should be"),
        (["--source=x", "--name=mine", "--data_dir=y", "--max_skiped=1"], "max_skiped"),
        (["--source=x", "--name=mine", "--data_dir=y", "--max_skipped=5"], "--max_skipped: 5.0 is not between"),
    ):
        result = runs.run([sys.executable, "-m", "vivit_jax.ingest", *flags])
        assert message in runs.error_line(result) and len(result.stderr.strip().splitlines()) == 1


def test_a_class_of_which_nothing_decodes_is_named(tmp_path):
    source = videos.folder(tmp_path / "videos", {"a": 3})
    for name in "xy":
        videos.truncate(videos.write(source / "b" / f"{name}.mp4"))
    with pytest.raises(UserError, match="the class 'b' has no video that decodes"):
        ingest(source, "mine", tmp_path / "data", max_skipped=0.9, num_workers=1)
    assert not (tmp_path / "data" / "mine" / "1.0.0").exists()


def test_killed_it_goes_on_where_it_stopped(tmp_path):
    source = videos.folder(tmp_path / "videos", {"a": 20, "b": 20})
    cache = tmp_path / "data" / "mine" / "cache"
    process = subprocess.Popen(
        command(source, tmp_path / "data", "--num_workers=1"),
        cwd=runs.REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while len(list(cache.glob("*.mp4"))) < 5 and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(0.5)  # its worker ends with it
    before = {path.name: path.stat().st_mtime_ns for path in cache.glob("*.mp4")}
    assert 5 <= len(before) < 40
    time.sleep(0.3)
    assert {path.name for path in cache.glob("*.mp4")} == before.keys()
    # Fails after re-encoding, on purpose, so that the cache can be looked at.
    (source / "a" / "zz.mp4").write_text("hello")
    assert runs.run(command(source, tmp_path / "data", "--max_skipped=0")).returncode == 1
    after = {path.name: path.stat().st_mtime_ns for path in cache.glob("*.mp4")}
    assert len(after) == 40 and all(after[name] == when for name, when in before.items())
    assert runs.run(command(source, tmp_path / "data")).returncode == 0
    assert not cache.exists() and sum(VideoDataset(tmp_path / "data", "mine").splits.values()) == 40


def test_complete_it_says_so_and_refuses_to_be_something_else(tmp_path, capsys):
    source = videos.folder(tmp_path / "videos", {"a": 2, "b": 2})
    path = ingest(source, "mine", tmp_path / "data", num_workers=1)
    before = {p: p.stat().st_mtime_ns for p in path.rglob("*")}
    assert ingest(source, "mine", tmp_path / "data") == path
    assert capsys.readouterr().out.splitlines()[-1] == f"{path} is complete already"
    with pytest.raises(UserError, match="exists already, made of"):
        ingest(source, "mine", tmp_path / "data", short_side=128)
    assert before == {p: p.stat().st_mtime_ns for p in path.rglob("*")}


def test_the_same_content_twice_is_two_videos(tmp_path):
    source = videos.folder(tmp_path / "videos", {"a": 2, "b": 2})
    for label in "ab":
        (source / label / "same.mp4").write_bytes((source / "a" / "0.mp4").read_bytes())
    ingest(source, "mine", tmp_path / "data", num_workers=2)
    assert sum(VideoDataset(tmp_path / "data", "mine").splits.values()) == 6


@pytest.mark.parametrize("limit", [3_000, 60_000])
def test_a_full_disk_is_one_line_and_leaves_no_dataset(tmp_path, limit):
    """Nothing can be written past a file size: the first is below a clip, the second below the dataset's file."""
    source = videos.folder(tmp_path / "videos", {"a": 12, "b": 12})
    result = runs.run(
        command(source, tmp_path / "data", "--num_workers=1"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    root = tmp_path / "data" / "mine"
    assert f"--data_dir: the disk is full at {root}" in runs.error_line(result)
    assert not (root / "1.0.0").exists() and not list(root.glob("*incomplete*")) and not list(root.rglob("*.tmp"))
    assert runs.run(command(source, tmp_path / "data")).returncode == 0
    assert json.loads((root / "ingest.json").read_text())["short_side"] == 256
