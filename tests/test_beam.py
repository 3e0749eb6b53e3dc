"""Ingest on Apache Beam, with real workers: the same dataset as without it, whoever does the work."""

import json
import time

import pytest

import miniatures
import runs
import videos
from vivit_jax.data.datasets import VideoDataset
from vivit_jax.errors import UserError
from vivit_jax.ingest import ingest

pytest.importorskip("apache_beam", reason="needs the extra `beam`")


def everything(data_dir, name="mine") -> dict[str, list[dict]]:
    dataset = VideoDataset(data_dir, name)
    return {
        split: [source[index] for index in range(len(source))]
        for split, source in ((split, dataset.source(split)) for split in dataset.splits)
    }


def on_beam(workers: int) -> list[str]:
    mode = "multi_processing" if workers > 1 else "in_memory"
    return [f"--direct_num_workers={workers}", f"--direct_running_mode={mode}", "--runner=DirectRunner"]


def test_the_dataset_does_not_depend_on_the_workers(tmp_path):
    """The command with two Beam workers, against one in memory and against ingest alone; broken files among them."""
    source = videos.folder(tmp_path / "videos", {"a": 6, "b": 6})
    videos.truncate(videos.write(source / "a" / "cut.mp4"))
    videos.write_audio(source / "b" / "sound.mp4")
    ingest(source, "mine", tmp_path / "alone", num_workers=2, max_skipped=0.2)
    ingest(source, "mine", tmp_path / "one", max_skipped=0.2, beam=on_beam(1))
    flags = [f"--beam={option}" for option in on_beam(2)]
    result = runs.run(runs.ingest_command(source, tmp_path / "two", "--max_skipped=0.2", *flags))
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1].startswith("Ingested 12 of 14 videos (2 skipped")
    expected = everything(tmp_path / "alone")
    assert everything(tmp_path / "one") == expected == everything(tmp_path / "two")
    skipped = {(tmp_path / where / "mine" / "skipped.csv").read_text() for where in ("alone", "one", "two")}
    assert len(skipped) == 1 and "b/sound.mp4,no video stream" in skipped.pop()
    assert not (tmp_path / "two" / "mine" / "cache").exists()


def test_a_benchmark_on_beam(tmp_path):
    miniatures.epic_kitchens100(tmp_path / "manual")
    name, options = "epic_kitchens100", dict(layout="epic_kitchens100")
    ingest(tmp_path / "manual", name, tmp_path / "alone", num_workers=1, **options)
    ingest(tmp_path / "manual", name, tmp_path / "beam", beam=on_beam(1), **options)
    assert everything(tmp_path / "alone", name) == everything(tmp_path / "beam", name)


def test_what_was_decoded_is_not_decoded_again(tmp_path):
    """Too much is skipped at first; the clips that were ready are taken as they are, also of a file that has moved."""
    source = videos.folder(tmp_path / "videos", {"a": 4, "b": 4})
    videos.truncate(videos.write(source / "a" / "cut.mp4"))
    with pytest.raises(UserError, match="--max_skipped: 1 of 9 videos cannot be used"):
        ingest(source, "mine", tmp_path / "data", beam=on_beam(1))
    cache = tmp_path / "data" / "mine" / "cache"
    before = {path.name: path.stat().st_mtime_ns for path in cache.glob("*.h264")}
    assert len(before) == 8
    (source / "a" / "0.mp4").rename(source / "a" / "moved.mp4")
    (source / "b" / "cut.mp4").write_bytes((source / "a" / "cut.mp4").read_bytes())
    time.sleep(0.01)
    with pytest.raises(UserError, match="--max_skipped: 2 of 10 videos cannot be used"):
        ingest(source, "mine", tmp_path / "data", beam=on_beam(1))
    assert before == {path.name: path.stat().st_mtime_ns for path in cache.glob("*.h264")}
    ingest(source, "mine", tmp_path / "data", beam=on_beam(1), max_skipped=0.5)
    assert json.loads((tmp_path / "data" / "mine" / "1.0.0" / "metadata.json").read_text())["skipped"] == 2
