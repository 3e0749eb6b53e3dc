"""What a terminal and what a log are shown of long work."""

import os
import pty
import subprocess
import termios

import runs
from vivit_jax import progress


def test_a_terminal_shows_a_bar(data_dir, tmp_path):
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 120))
    command = runs.command(data_dir, tmp_path / "run", *runs.flags(train__epochs=2.0))
    process = subprocess.Popen(
        command, cwd=runs.REPOSITORY, env=runs.environment(), stdout=subprocess.DEVNULL, stderr=theirs
    )
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 4096):
            shown += piece
    except OSError:  # how a terminal says that nobody writes to it any more
        assert process.wait() == 0, shown
    finally:
        os.close(ours)
    assert b"\rtrain: 100%" in shown and b"4/4" in shown and b"loss=" in shown, shown
    assert b"\rvalidation:" in shown and b"of 4, loss" not in shown, shown


def test_a_log_gets_a_line_now_and_then(monkeypatch, capsys):
    def pieces():
        for piece in "abcd":
            now[0] += 25
            yield piece

    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    assert list(progress.progress(pieces(), "train", 4, "videos")) == list("abcd")
    assert capsys.readouterr().err == "train: 2 of 4 videos\n"
    assert list(progress.progress(pieces(), "train", 4, "videos", silent=True)) == list("abcd")
    assert capsys.readouterr().err == ""
