"""How commands end that did not come to their end: with one line, or none."""

import subprocess
import sys
from pathlib import Path

import pytest

import runs
from vivit_jax.errors import UserError
from vivit_jax.training.run import claim

COMMAND = """
import gc, os, signal, sys, time
from vivit_jax import errors

def interrupt(*_):
    gc.callbacks.clear()
    signal.raise_signal(signal.SIGINT)

def main(argv):
    {body}

signal.signal(signal.SIGINT, signal.default_int_handler)
errors.run(main)
"""
ENDS = {
    "interrupted": ("interrupt(); time.sleep(30)", 130, "error: interrupted\n"),
    "interrupted where callbacks swallow it": (
        "gc.callbacks.append(interrupt); gc.collect(); time.sleep(30)", 130, "error: interrupted\n",
    ),
    "a folder in a file": (
        "open(os.path.join(__file__, 'x'), 'w')", 1,
        "error: {file}/x: Not a directory; take another place, or make it one that can be written\n",
    ),
    "a folder instead of a file": (
        "open(os.path.dirname(__file__), 'w')", 1,
        "error: {folder}: Is a directory; take another place, or make it one that can be written\n",
    ),
    "nobody reads on": ("[print(i, flush=True) for i in range(100000)]", 0, ""),
}  # fmt: skip


def test_a_workdir_that_takes_no_files_is_said_before_anything_is_computed(data_dir):
    with pytest.raises(UserError, match="--workdir: cannot write to /proc: "):
        claim(Path("/proc"), runs.config(data_dir))


@pytest.mark.parametrize("case", ENDS)
def test_one_line_or_none(tmp_path, case):
    body, status, line = ENDS[case]
    script = tmp_path / "script.py"
    script.write_text(COMMAND.format(body=body))
    process = subprocess.Popen(
        [sys.executable, str(script)], cwd=runs.REPOSITORY, env=runs.environment(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    if case == "nobody reads on":
        assert process.stdout
        process.stdout.readline()
        process.stdout.close()
    assert process.communicate(timeout=20)[1] == line.format(file=script, folder=tmp_path)  # bodies would sleep on
    assert process.returncode == status
