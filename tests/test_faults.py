"""Signals, and checkpoints that were torn or altered: a run ends in order, or goes on from what is whole."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import jax
import numpy as np
import pytest

import runs
from test_training import assert_equal, final_state
from vivit_jax.checkpoints.training import saved_steps
from vivit_jax.errors import UserError
from vivit_jax.training import loop


def start(arguments):
    return subprocess.Popen(
        arguments,
        cwd=runs.REPOSITORY,
        env=runs.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # with its decoding processes a group, as in a terminal of its own
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for(condition, process, seconds=120.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline and process.poll() is None, process.stderr.read()
        time.sleep(0.02)


def last_step(workdir: Path) -> int:
    return runs.log(workdir)[-1]["step"] if (workdir / "log.jsonl").exists() and runs.log(workdir) else 0


def kill_at(arguments, workdir, step: int) -> int:
    """Starts a run and kills it when it has logged `step`; returns the last step it logged."""
    process = start(arguments)
    wait_for(lambda: last_step(workdir) >= step, process)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    return last_step(workdir)


def test_killed_twice_and_asked_to_end_it_ends_where_an_uninterrupted_run_ends(data_dir, tmp_path):
    """Bit for bit: parameters, optimizer and the log of every loss. Asked to end, it saves first."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    changes = dict(train__epochs=30.0, train__checkpoint_every=25, data__num_workers=1)  # 60 steps
    changes |= dict(schedule__name="cosine")
    flags = runs.flags(**changes)
    result = runs.run(runs.command(data_dir, whole, *flags))
    assert result.returncode == 0, result.stderr
    shown = re.findall(r"^step (\d+) of 60, loss \S+, top_1 \S+, clips_per_second \S+$", result.stderr, re.MULTILINE)
    assert shown == [str(step) for step in range(1, 61)] and "\r" not in result.stderr  # not a terminal: lines
    killed = [kill_at(runs.command(data_dir, broken, *flags), broken, step) for step in (2, 27)]
    assert killed == sorted(set(killed)) and killed[-1] < 60, killed
    process = start(runs.command(data_dir, broken, *flags))
    wait_for(lambda: saved_steps(broken) and last_step(broken) > killed[-1], process)
    os.killpg(process.pid, signal.SIGINT)  # Ctrl-C
    began = time.monotonic()
    out, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    assert "ends after this step; Ctrl-C again: at once" in error and "Traceback" not in error
    assert "decoding process died" not in error
    assert time.monotonic() - began < 30
    step = int(re.search(r"asked to end: .* is saved at step (\d+); start again to go on", out)[1])
    assert killed[-1] < step < 60 and saved_steps(broken)[-1] == step and not (broken / "metrics.json").exists()
    result = runs.run(runs.command(data_dir, broken, *flags))
    assert result.returncode == 0, result.stderr
    config = runs.config(data_dir, **changes)
    assert_equal(final_state(config, whole), final_state(config, broken))
    assert runs.metrics(whole) == runs.metrics(broken)
    losses = [[(line["step"], line["train/loss"]) for line in runs.log(workdir)] for workdir in (whole, broken)]
    assert losses[0] == losses[1] and len(losses[0]) == 60


def test_asked_to_end_while_it_evaluates(data_dir, tmp_path, monkeypatch):
    """The step before is saved at once; evaluation is not waited for."""
    calls = []

    def evaluate(*arguments):
        calls.append(arguments)
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError("it went on")

    monkeypatch.setattr(loop.Evaluator, "__call__", evaluate)
    config = runs.config(data_dir, train__epochs=3.0, train__eval_every_epochs=1.0)
    loop.train(config, tmp_path)
    assert len(calls) == 1 and saved_steps(tmp_path) == [2] and not (tmp_path / "metrics.json").exists()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    monkeypatch.undo()
    loop.train(config, tmp_path)
    assert runs.metrics(tmp_path)["step"] == 6


def arrays(folder: Path) -> list[Path]:
    """The files with the numbers; which of them are still read, and which were written over, is not told."""
    return [path for path in (folder / "state").rglob("*") if path.is_file() and path.parent.name == "d"]


def flip(data: bytes) -> bytes:
    flipped = bytearray(data)
    for at in range(len(data) // 3, 2 * len(data) // 3, 97):
        flipped[at] ^= 0x55
    return bytes(flipped)


DAMAGE = {
    "torn": lambda folder: [path.write_bytes(path.read_bytes()[:1000]) for path in arrays(folder)],
    "files are missing": lambda folder: [path.unlink() for path in arrays(folder)],
    "state is missing": lambda folder: shutil.rmtree(folder / "state"),
    "bits are flipped": lambda folder: [path.write_bytes(flip(path.read_bytes())) for path in arrays(folder)],
    "the description is torn": lambda folder: (folder / "data" / "metadata").write_text("{"),
}


@pytest.fixture(scope="module")
def run_of_three(data_dir, tmp_path_factory):
    """Checkpoints of steps 2, 4 and 6; not evaluated yet."""
    workdir = tmp_path_factory.mktemp("faults") / "run"
    loop.train(runs.config(data_dir, train__checkpoint_every=2, train__keep=3), workdir)
    (workdir / "metrics.json").unlink()
    return workdir


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_checkpoint_that_cannot_be_read_falls_back_to_the_one_before(
    damage, data_dir, run_of_three, tmp_path, capsys
):
    config = runs.config(data_dir, train__checkpoint_every=2, train__keep=3)
    expected = final_state(config, run_of_three)
    workdir = tmp_path / "run"
    shutil.copytree(run_of_three, workdir)
    DAMAGE[damage](workdir / "checkpoints" / "6")
    loop.train(config, workdir)
    out = capsys.readouterr().out
    assert "The checkpoint of step 6 cannot be read (" in out and "going on from step 4" in out
    assert (workdir / "broken_checkpoints" / "6").is_dir()
    assert runs.metrics(workdir)["step"] == 6 and saved_steps(workdir) == [2, 4, 6]
    jax.tree.map(np.testing.assert_array_equal, final_state(config, workdir), expected)


def test_where_none_can_be_read_nothing_is_overwritten(data_dir, run_of_three, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(run_of_three, workdir)
    for step in (2, 4, 6):
        DAMAGE["files are missing"](workdir / "checkpoints" / str(step))
    with pytest.raises(UserError, match=r"no checkpoint can be read \(step 6: .*; step 4: .*; step 2: .*\)") as caught:
        loop.train(runs.config(data_dir, train__checkpoint_every=2, train__keep=3), workdir)
    assert "\n" not in str(caught.value) and saved_steps(workdir) == [2, 4, 6]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.slow
def test_what_was_compiled_is_kept(data_dir, tmp_path, monkeypatch):
    """A second start takes its programs from the workdir."""
    for name in ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
        monkeypatch.delenv(name)
    flags = ["--config.train.epochs=1.0"]
    assert runs.run(runs.command(data_dir, tmp_path / "run", *flags)).returncode == 0
    kept = {path.name for path in (tmp_path / "run" / "compiled").iterdir()}
    assert any("step" in name for name in kept)
    for name in ("checkpoints", "metrics.json", "log.jsonl"):
        path = tmp_path / "run" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert runs.run(runs.command(data_dir, tmp_path / "run", *flags)).returncode == 0
    programs = {name for name in (path.name for path in (tmp_path / "run" / "compiled").iterdir()) if "-cache" in name}
    assert programs == {name for name in kept if "-cache" in name}
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["step"] == 2
