"""SIGKILL at any moment, also while a checkpoint is being written: nothing of it is in the parameters."""

import random
import signal
import subprocess
import time

import numpy as np
import pytest

import runs
from test_faults import last_step, wait_for
from test_processes import compare, finish, params, start

FLAGS = ("--config.train.epochs=30.0", "--config.train.checkpoint_every=1")  # 60 steps, each saved


def kill(data_dir, workdir, writing: bool, seconds: float) -> bool:
    """Starts, and kills some time after the next step is done; returns whether a checkpoint was half-written."""
    process = subprocess.Popen(
        runs.command(data_dir, workdir, *FLAGS),
        cwd=runs.REPOSITORY, env=runs.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    step, half = last_step(workdir), "*.orbax-checkpoint-tmp*"
    wait_for(lambda: last_step(workdir) > step, process)
    if writing:
        wait_for(lambda: any((workdir / "checkpoints").glob(half)), process)
    else:
        time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    return any((workdir / "checkpoints").glob(half))


@pytest.mark.slow
def test_twenty_kills_change_nothing(data_dir, tmp_path):
    rng, half_written = random.Random(0), 0
    for number in range(20):
        half_written += kill(data_dir, tmp_path / "killed", number % 2 == 1, rng.uniform(0, 0.3))
    assert half_written >= 5
    for name in ("killed", "whole"):
        assert runs.run(runs.command(data_dir, tmp_path / name, *FLAGS)).returncode == 0
    ours, theirs = (params(tmp_path / name) for name in ("killed", "whole"))
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name], value, err_msg=name)
    assert [line["step"] for line in runs.log(tmp_path / "killed")] == list(range(1, 61))


@pytest.mark.slow
def test_twenty_steps_of_two_processes_one_of_them_killed(data_dir, tmp_path):
    """2 x 4 devices are 1 x 8, and still are when one process was killed on the way and all started again."""
    steps = "--config.train.epochs=10.0"
    finish(start(data_dir, tmp_path / "alone", 1, steps))
    finish(start(data_dir, tmp_path / "two", 2, steps))
    compare(tmp_path / "two", tmp_path / "alone")
    processes = start(data_dir, tmp_path / "killed", 2, steps)
    while last_step(tmp_path / "killed") < 9:
        assert processes[0].poll() is None
        time.sleep(0.02)
    processes[1].kill()
    assert processes[0].wait(timeout=60) != 0
    finish(start(data_dir, tmp_path / "killed", 2, steps))
    compare(tmp_path / "killed", tmp_path / "alone")
    ours, theirs = (params(tmp_path / name) for name in ("killed", "two"))
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name], value, err_msg=name)
