"""What ingest says of sources, flags and disks that will not do: one line, and nothing is left."""

import json
import resource
import sys
from pathlib import Path

import pytest

import runs
import videos
from vivit_jax.data import clips
from vivit_jax.data.sources import Entry
from vivit_jax.errors import UserError
from vivit_jax.files import replacing
from vivit_jax.ingest import ingest


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
    "a folder beside splits": (
        lambda p: [videos.folder(p / name, {"a": 2}) for name in ("train", "val", "extra")] and p,
        "or train/ and validation/ with these; beside train, val it has extra",
    ),
    "one video": (lambda p: videos.folder(p, {"a": 3, "b": 1}), "the class 'b' has a single video to train on"),
    "columns": (lambda p: _table(p, "file,label\na,b\n"), "has no column path"),
    "no rows": (lambda p: _table(p, "path,label\n"), "names no videos"),
    "missing files": (
        lambda p: _table(p, "path,label\nx.mp4,a\ny.mp4,a\n"),
        "none of the 2 files named in .* is there: x.mp4, y.mp4",
    ),
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


@pytest.mark.parametrize("limit", [3_000, 60_000])
def test_a_full_disk_is_one_line_and_leaves_no_dataset(tmp_path, limit):
    """Nothing can be written past a file size: the first is below a clip, the second below the dataset's file."""
    source = videos.folder(tmp_path / "videos", {"a": 12, "b": 12})
    result = runs.run(
        runs.ingest_command(source, tmp_path / "data", "--num_workers=4"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    root = tmp_path / "data" / "mine"
    assert f"--data_dir: the disk is full at {root}" in runs.error_line(result)
    assert not (root / "1.0.0").exists() and not list(root.glob("*incomplete*")) and not list(root.rglob("*.tmp"))
    assert runs.run(runs.ingest_command(source, tmp_path / "data")).returncode == 0
    assert json.loads((root / "1.0.0" / "metadata.json").read_text())["short_side"] == 256


def test_a_csv_may_name_files_that_are_missing(tmp_path):
    source = videos.folder(tmp_path / "videos", {"a": 4, "b": 4})
    rows = [f"{label}/{index}.mp4,{label}" for label in "ab" for index in range(5)]
    (source / "list.csv").write_text("\n".join(["path,label", *rows]))
    with pytest.raises(UserError, match=r"--max_skipped: 2 of 10 videos cannot be used \(a/4.mp4: no such file"):
        ingest(source / "list.csv", "mine", tmp_path / "data", num_workers=1)
    ingest(source / "list.csv", "mine", tmp_path / "data", num_workers=1, max_skipped=0.2)
    assert (tmp_path / "data" / "mine" / "skipped.csv").read_text().split() == [
        "path,reason", "a/4.mp4,no", "such", "file", "b/4.mp4,no", "such", "file"
    ]  # fmt: skip


def test_machines_that_share_a_disk_may_write_the_same_file(tmp_path):
    """The numbers of their processes can be the same, too."""
    path = tmp_path / "clip"
    with replacing(path) as ours:
        ours.write_text("whole")
        with replacing(path) as theirs:
            theirs.write_text("whole")
    assert path.read_text() == "whole" and list(tmp_path.iterdir()) == [path]


def test_a_video_is_missing_only_where_it_is_the_video_that_is_missing(tmp_path, monkeypatch):
    def job(path):
        return clips.Job("0", Entry(path, path.name, ("a",)), ("label",), tmp_path, 32, "h264")

    gone, there = job(tmp_path / "gone.mp4"), job(videos.write(tmp_path / "a.mp4"))
    with pytest.raises((ValueError, OSError)) as missing:
        clips.encode(gone)
    assert list(clips.finish(gone, None, missing.value)) == []
    with monkeypatch.context() as patch, pytest.raises(FileNotFoundError) as unwritten:
        patch.setattr("os.replace", lambda source, _: Path(source.parent / "nowhere").stat())
        clips.encode(there)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        list(clips.finish(there, None, unwritten.value))
    assert clips.skipped(tmp_path) == {"gone.mp4": "No such file or directory"}
