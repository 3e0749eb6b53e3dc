"""Rendering the motion videos into a folder: all of them or nothing."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import runs
from vivit_jax.data import motion_files


def relative_files(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in sorted(directory.rglob("*.mp4"))}


def test_some_of_the_classes(tmp_path):
    kinds = ("rotate_clockwise", "shrink", "grow", "rotate_counterclockwise")
    motion_files.generate(tmp_path / "some", num_train=8, num_validation=4, classes=kinds, num_workers=1)
    for split, number in ("train", 2), ("validation", 1):
        counts = {path.name: len(list(path.glob("*.mp4"))) for path in (tmp_path / "some" / split).iterdir()}
        assert counts == dict.fromkeys(kinds, number)
    for wrong in ("grow",), ("grow", "shrink", "move_up"), ("grow", "jump"), ():
        with pytest.raises(ValueError, match="are none, or not all in pairs"):
            motion_files.generate(tmp_path / "wrong", num_train=12, num_validation=12, classes=wrong)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_generation_leaves_nothing_that_looks_complete(tmp_path, number):
    program = (
        f"from vivit_jax.data import motion_files; motion_files.generate({str(tmp_path / 'videos')!r}, num_train=80000)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stderr=subprocess.DEVNULL, cwd=runs.REPOSITORY,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # a shell ignores SIGINT for what it starts with &
    )  # fmt: skip
    deadline = time.monotonic() + 30
    while not list(tmp_path.rglob("*.mp4")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert list(tmp_path.rglob("*.mp4"))
    process.send_signal(number)
    assert process.wait(timeout=10) != 0
    assert not (tmp_path / "videos").exists()
    if number == signal.SIGINT:
        assert not list(tmp_path.iterdir())
    time.sleep(0.5)
    left = relative_files(tmp_path)
    time.sleep(0.5)
    assert relative_files(tmp_path).keys() == left.keys()  # the workers have ended too


def test_a_failed_worker_is_told_and_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError, match=r"rendering failed: ValueError: .*non-negative"):
        motion_files.generate(tmp_path / "videos", num_train=8, num_validation=8, seed=-1)
    assert not list(tmp_path.iterdir())


def test_bad_arguments(tmp_path):
    with pytest.raises(ValueError, match=r"num_train=12.*multiples of 8"):
        motion_files.generate(tmp_path / "videos", num_train=12)
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(FileExistsError, match=re.escape(str(tmp_path))):
        motion_files.generate(tmp_path, num_train=8, num_validation=8)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_workers_import_no_jax():
    program = "import sys, vivit_jax.data.motion_files, vivit_jax.data.transcode; print('jax' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", program], text=True, cwd=runs.REPOSITORY).strip() == "False"
