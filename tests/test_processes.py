"""Real processes that make one run: the numbers of a single one, and no waiting for those that are gone."""

import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import runs
import vivit_jax
from test_faults import last_step
from vivit_jax.checkpoints.parameters import paths
from vivit_jax.checkpoints.training import saved_steps
from vivit_jax.evaluation.scores import load_scores
from vivit_jax.training import loop

FLAGS = ("--config.augment.mixup=0.5", "--config.augment.erase=0.5", "--config.train.checkpoint_every=2")
FLAGS += ("--config.train.epochs=3.0",)  # 6 steps


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def popen(command: list[str], devices: int) -> subprocess.Popen:
    variables = dict(JAX_NUM_CPU_DEVICES=str(devices), JAX_CPU_COLLECTIVES_IMPLEMENTATION="gloo")
    environment = runs.environment(**variables, PYTHONPATH=str(runs.REPOSITORY))
    options = dict(env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return subprocess.Popen(command, cwd=runs.REPOSITORY, **options)


def start(data_dir: Path, workdir: Path, count: int, *flags: str) -> list[subprocess.Popen]:
    """`count` processes with 8 devices together."""
    flags = (*FLAGS, *flags, f"--coordinator=localhost:{free_port()}", f"--num_processes={count}")
    commands = [runs.command(data_dir, workdir, *flags, f"--process_id={index}") for index in range(count)]
    return [popen(command, 8 // count) for command in commands]


def finish(processes: list[subprocess.Popen]) -> list[str]:
    out = [process.communicate(timeout=200)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), out
    return out


def params(workdir: Path) -> dict[str, np.ndarray]:
    return {name: np.asarray(x) for name, x in paths(vivit_jax.load_model(workdir)).items()}


@pytest.fixture(scope="module")
def alone(data_dir, tmp_path_factory):
    """What a single process gives."""
    workdir = tmp_path_factory.mktemp("alone") / "run"
    finish(start(data_dir, workdir, 1))
    return workdir


def compare(workdir: Path, alone: Path) -> None:
    ours, theirs = params(workdir), params(alone)
    for name, value in theirs.items():
        # A bias of keys adds the same to all logits of a query: its gradient is rounding alone.
        np.testing.assert_allclose(ours[name], value, atol=1e-3 if name.endswith("key/bias") else 1e-5, err_msg=name)
    ours, theirs = (runs.metrics(where)["validation"] for where in (workdir, alone))
    assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-5) and ours["top_1"] == theirs["top_1"]
    assert ours["num_videos"] == 24


@pytest.mark.slow
def test_four_processes_are_one_run(data_dir, alone, tmp_path):
    """Mixup, erasing and crops included; evaluation covers every video once."""
    out = finish(start(data_dir, tmp_path, 4))
    assert "on 24 videos" in out[0] and not any("on 24 videos" in other for other in out[1:])
    compare(tmp_path, alone)


def test_two_processes_write_the_scores_of_all_videos_once(data_dir, alone, tmp_path):
    settings = dict(augment__mixup=0.5, augment__erase=0.5, train__checkpoint_every=2)
    config = runs.config(data_dir, **settings, evaluation__clips=2)
    for name in ("one", "two"):
        shutil.copytree(alone, tmp_path / name)
    loop.evaluate(config, tmp_path / "one")
    out = finish(start(data_dir, tmp_path / "two", 2, "--mode=evaluate", "--config.evaluation.clips=2"))
    assert "scores_validation.npz" in out[0] and "scores_validation.npz" not in out[1]
    ours, theirs = (load_scores(tmp_path / name / "scores_validation.npz") for name in ("two", "one"))
    assert list(ours.paths) == list(theirs.paths) and len(set(ours.paths)) == 24
    np.testing.assert_allclose(ours.logits, theirs.logits, atol=1e-5)
    assert (ours.labels == theirs.labels).all() and ours.metrics() == runs.metrics(tmp_path / "two")["validation"]


def two_steps(processes: list[subprocess.Popen], workdir: Path) -> None:
    deadline = time.monotonic() + 120
    while last_step(workdir) < 2:
        assert time.monotonic() < deadline and processes[0].poll() is None
        time.sleep(0.02)


def ends_with_one_line(process: subprocess.Popen) -> None:
    began = time.monotonic()
    out, _ = process.communicate(timeout=60)
    assert time.monotonic() - began < 60 and process.returncode == 1
    assert re.search("^error: process 0 of 2: another one has died", out, re.MULTILINE) and "Traceback" not in out


def test_a_process_that_is_killed_ends_the_others_and_the_run_goes_on(data_dir, alone, tmp_path):
    processes = start(data_dir, tmp_path, 2)
    two_steps(processes, tmp_path)
    processes[1].kill()
    ends_with_one_line(processes[0])
    assert not (tmp_path / "metrics.json").exists()
    out = finish(start(data_dir, tmp_path, 2))
    assert "on 24 videos" in out[0] and "on 24 videos" not in out[1]
    compare(tmp_path, alone)
    assert [line["step"] for line in runs.log(tmp_path)] == list(range(1, 7))


@pytest.mark.slow
def test_a_process_that_hangs_ends_the_others(data_dir, tmp_path):
    """Its connections stay open, so that nothing fails: it is only silent."""
    processes = start(data_dir, tmp_path, 2)
    two_steps(processes, tmp_path)
    processes[1].send_signal(signal.SIGSTOP)
    try:
        ends_with_one_line(processes[0])
    finally:
        processes[1].kill()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_end_all_processes_save_the_same_step(data_dir, tmp_path, number):
    """One of them is told, as when a cloud takes one machine back."""
    processes = start(data_dir, tmp_path, 2, "--config.train.checkpoint_every=1000")
    two_steps(processes, tmp_path)
    processes[1].send_signal(number)
    out = finish(processes)
    assert "is saved at step" in out[0] and saved_steps(tmp_path) and not (tmp_path / "metrics.json").exists()


def test_a_checkpoint_that_one_process_cannot_read_is_put_aside_by_all(tmp_path):
    program, port = Path(__file__).with_name("half_broken.py"), str(free_port())
    out = finish([popen([sys.executable, str(program), str(tmp_path), port, str(index)], 1) for index in range(2)])
    for process in range(2):
        assert f"process {process} of {{'saved': 2}} goes on from 2, the last is 2" in out[process]
    assert re.search(r"The checkpoint of step 4 cannot be read \(.+\); going on from step 2", out[0])
    assert "cannot be read" not in out[1] and saved_steps(tmp_path) == [2, 4]


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--coordinator=localhost:1"], "--coordinator: needs --num_processes and --process_id as well"),
        (["--coordinator=localhost:1", "--num_processes=2", "--process_id=2"], "--process_id: 2 is not one of 2"),
        (["--coordinator=host", "--num_processes=2", "--process_id=1"], "--coordinator: 'host' is not HOST:PORT"),
    ],
)
def test_which_process_it_is_has_to_be_said(data_dir, tmp_path, flags, message):
    assert message in runs.error_line(runs.run(runs.command(data_dir, tmp_path, *flags)))
