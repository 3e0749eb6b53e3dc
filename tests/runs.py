"""A small ingested dataset and runs on it, shared by the tests that train."""

import contextlib
import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import jax

from tiny import config_dict
from vivit_jax.checkpoints.training import Checkpoints
from vivit_jax.config import from_dict
from vivit_jax.data import motion_files
from vivit_jax.ingest import ingest
from vivit_jax.training.run import claim, open_run

REPOSITORY = Path(__file__).parents[1]


def dataset(root: Path) -> Path:
    """`root/data/tiny`: 32 training and 24 validation clips; test processes share it."""
    root.mkdir(exist_ok=True)
    with (root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (root / "data" / "tiny").exists():
            motion_files.generate(root / "videos", num_train=32, num_validation=24, num_workers=1)
            with contextlib.redirect_stdout(None):
                ingest(root / "videos", "tiny", root / "data", num_workers=1)
    return root / "data"


def config(data_dir: Path, **changes):
    return from_dict(config_dict(data_dir, **changes))


def untrained(config, workdir: Path) -> None:
    """A workdir as after the first step, with random parameters everywhere: nothing is compiled for it."""
    run, checkpoints = open_run(config, workdir), Checkpoints(workdir, 1)
    claim(workdir, config)
    state = run.new_state()
    params = jax.tree.map(lambda x: x + 0.2 * jax.random.normal(jax.random.key(x.size), x.shape), state["params"])
    checkpoints.save(1, state | {"step": state["step"] + 1, "params": params}, run.data())
    checkpoints.close()


def command(data_dir: Path, workdir: Path, *flags: str) -> list[str]:
    """The same configuration through the command line, from a config file."""
    path = data_dir.parent / "tiny_config.py"
    if not path.exists():
        temporary = path.with_name(f"{os.getpid()}.py")
        temporary.write_text(
            f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\nfrom pathlib import Path\n"
            f"import tiny\n\ndef get_config():\n    return tiny.config_dict(Path({str(data_dir)!r}))\n"
        )
        temporary.rename(path)
    return [sys.executable, "-m", "vivit_jax.main", f"--config={path}", f"--workdir={workdir}", *flags]


def flags(**changes) -> list[str]:
    """The same changes as `config` takes, for the command line."""
    return [f"--config.{key.replace('__', '.')}={value}" for key, value in changes.items()]


def ingest_command(source: Path, data_dir: Path, *flags: str, name: str = "mine") -> list[str]:
    program = [sys.executable, "-m", "vivit_jax.ingest"]
    return [*program, f"--source={source}", f"--name={name}", f"--data_dir={data_dir}", *flags]


def environment(**variables: str) -> dict[str, str]:
    return os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "2"} | variables


def run(arguments: list[str], variables: dict[str, str] | None = None, **kwargs) -> subprocess.CompletedProcess:
    """Runs a command of the package to its end."""
    options = dict(cwd=REPOSITORY, env=environment(**variables or {}), capture_output=True, text=True, timeout=300)
    return subprocess.run(arguments, **options | kwargs)


def use(*flags: str, cache: Path) -> subprocess.CompletedProcess:
    """A verb for trained models, which keeps what it compiles in `cache`."""
    return run([sys.executable, "-m", "vivit_jax.main", *flags], {"XDG_CACHE_HOME": str(cache)})


def error_line(result: subprocess.CompletedProcess) -> str:
    """The one line that a mistake ends in."""
    assert result.returncode != 0, result.stdout
    assert "Traceback" not in result.stderr, result.stderr
    lines = [line for line in result.stderr.replace("\r", "\n").splitlines() if line.startswith("error:")]
    assert len(lines) == 1, result.stderr
    return lines[0]


def metrics(workdir: Path) -> dict:
    return json.loads((workdir / "metrics.json").read_text())


def log(workdir: Path, prefix: str = "train/") -> list[dict]:
    lines = [json.loads(line) for line in (workdir / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if any(key.startswith(prefix) for key in line)]
