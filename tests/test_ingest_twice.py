"""Two that make one dataset at the same time: the second waits for the first, and takes what it has made."""

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import videos
from vivit_jax.data import motion_files
from vivit_jax.data.datasets import VideoDataset
from vivit_jax.files import alone
from vivit_jax.ingest import ensure, ingest
from vivit_jax.sections import Data


def waiting(capsys, *running: Future) -> None:
    """Returns when one of the threads has said that it waits."""
    said = ""
    while "waiting for another process, which has locked " not in (said := said + capsys.readouterr().err):
        assert not any(thread.done() for thread in running), running
        time.sleep(0.01)


def test_a_second_ingest_waits_for_the_first_and_finds_its_dataset(tmp_path, capsys):
    source, root = videos.folder(tmp_path / "videos", {"a": 2, "b": 2}), tmp_path / "data" / "mine"
    done = ingest(source, "mine", tmp_path / "elsewhere", num_workers=1)
    begun = root / "incomplete.1_1.0.0"
    with ThreadPoolExecutor(1) as pool:
        with alone(root / "lock"):
            begun.mkdir()
            second = pool.submit(ingest, source, "mine", tmp_path / "data", num_workers=1)
            waiting(capsys, second)
            done.rename(begun / "all")  # nobody has removed it
            (begun / "all").rename(root / "1.0.0")
        assert second.result() == root / "1.0.0"
    assert capsys.readouterr().out == f"{root / '1.0.0'} is complete already\n"
    assert [path.name for path in root.iterdir()] == ["1.0.0"]


def test_two_runs_render_and_ingest_their_dataset_once(tmp_path, capsys, monkeypatch):
    rendered, go_on = [], threading.Event()

    def generate(folder):
        rendered.append(folder)
        assert go_on.wait(20)
        videos.folder(folder, {"a": 2, "b": 2})

    monkeypatch.setattr(motion_files, "generate", generate)
    data = Data("mine", str(tmp_path / "data"), "motion")
    with ThreadPoolExecutor(2) as pool:
        threads = [pool.submit(ensure, data) for _ in range(2)]
        waiting(capsys, *threads)
        go_on.set()
        assert [thread.result() for thread in threads] == [None, None]
    assert rendered == [tmp_path / "data" / "mine_videos"]
    assert sum(VideoDataset(tmp_path / "data", "mine").splits.values()) == 4
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["mine", "mine_videos"]
