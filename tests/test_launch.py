"""The scripts that launch a run on a pod, against a stand-in for gcloud and the flags that there are."""

import os
import shlex
import subprocess

import pytest
import yaml

import runs
from vivit_jax import main

SCRIPT = runs.REPOSITORY / "scripts" / "tpu_vm.sh"
GCLOUD = """#!/usr/bin/env python3
import json, os, sys
with open(os.environ["CALLS"], "a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\\n")
sys.exit(sys.argv[4] == "describe" and not os.environ.get("THERE"))
"""


@pytest.fixture
def launch(tmp_path):
    (tmp_path / "gcloud").write_text(GCLOUD)
    (tmp_path / "gcloud").chmod(0o755)

    def call(*arguments: str, **variables: str) -> tuple[subprocess.CompletedProcess, list[list[str]]]:
        path, calls = f"{tmp_path}:{os.environ['PATH']}", tmp_path / "calls"
        calls.unlink(missing_ok=True)
        environment = os.environ | {"PATH": path, "CALLS": str(calls)} | variables
        done = subprocess.run([str(SCRIPT), *arguments], capture_output=True, text=True, env=environment, timeout=60)
        return done, [yaml.safe_load(line) for line in calls.read_text().splitlines()] if calls.exists() else []

    return call


WHERE = ("kinetics", "us-west4-a", "v5litepod-256", "my-bucket", "--")


def test_a_slice_is_made_installed_and_started(launch):
    done, calls = launch(*WHERE, "--config=configs/k400_fe.py", "--config.data.name=with space")
    assert done.returncode == 0, done.stderr
    verbs = [call[3] for call in calls]
    assert verbs == ["describe", "create", "scp", "ssh", "ssh"]
    assert "--accelerator-type=v5litepod-256" in calls[1] and "--version=v2-alpha-tpuv5-lite" in calls[1]
    assert all("--worker=all" in call for call in calls[2:]) and all("--zone=us-west4-a" in call for call in calls)
    command = calls[-1][-1].removeprefix("--command=")
    words = shlex.split(command.split("&& ")[-1])
    assert words[:3] == ["python", "-m", "vivit_jax.main"] and "--config.data.name=with space" in words
    assert "--workdir=/mnt/bucket/runs/kinetics" in words and "--coordinator=auto" in words
    subprocess.run(["bash", "-n", "-c", calls[-2][-1].removeprefix("--command=")], check=True)


def test_hosts_get_the_options_of_the_compiler(launch):
    _, calls = launch(*WHERE, "--config=configs/k400_fe.py", LIBTPU_INIT_ARGS="--xla_a=true --xla_b=2")
    words = shlex.split(calls[-1][-1].removeprefix("--command=").split("&& ")[-1])
    assert words[:3] == ["LIBTPU_INIT_ARGS=--xla_a=true --xla_b=2", "python", "-m"]


def test_a_slice_that_is_there_is_taken(launch):
    _, calls = launch(*WHERE, "--config=configs/k400_fe.py", THERE="1")
    assert "create" not in [call[3] for call in calls]
    _, calls = launch(*WHERE, "--config=configs/k400_fe.py", SPOT="1")
    assert "--spot" in calls[1]


def test_what_is_missing_is_said(launch):
    done, calls = launch("kinetics", "us-west4-a")
    assert done.returncode == 2 and "scripts/tpu_vm.sh NAME ZONE ACCELERATOR BUCKET --" in done.stderr and not calls
    done, _ = launch("a", "b", "v9-8", "d", "--", "--config=configs/demo.py")
    assert done.returncode != 0 and "set VERSION to the runtime of v9-8" in done.stderr


def test_the_job_starts_what_there_is():
    service, job = yaml.safe_load_all((runs.REPOSITORY / "scripts" / "kubernetes.yaml").read_text())
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    _, _, module, *flags = container["command"]
    assert module == main.__name__ and all(
        (runs.REPOSITORY / flag.split("=")[1]).exists() for flag in flags if "--config=" in flag
    )
    known = {*main.flags.FLAGS, "config.data.data_dir", "config.data.num_workers"}
    assert {flag.split("=")[0].removeprefix("--") for flag in flags} <= known
    # The hosts of a slice find each other by the service's name, and each of them has four of its chips.
    assert service["metadata"]["name"] == pod["subdomain"] == job["metadata"]["name"]
    chips = container["resources"]["limits"]["google.com/tpu"] * job["spec"]["completions"]
    rows, columns = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")
    assert chips == int(rows) * int(columns) and job["spec"]["parallelism"] == job["spec"]["completions"]
