"""Plans: what is said of a compiled module, and, where libtpu is, the real compiler."""

import importlib.util
import json
import re
import sys
from dataclasses import replace

import pytest

import runs
from vivit_jax.config import from_dict
from vivit_jax.errors import UserError
from vivit_jax.planning import hlo, search, slices
from vivit_jax.planning.plan import Plan, _wanted
from vivit_jax.planning.report import lines


def made(cycles: int = 1_500_000_000, fits: bool = True, **changes) -> Plan:
    module = hlo.Module(cycles, kernels=2)
    memory = {"parameters": 2**30, "temporaries": 2**31}
    mesh = {"data": 4, "fsdp": 1, "context": 1, "tensor": 1}
    return replace(Plan("v5e:2x2", 4, 4, "train", 8, mesh, memory, fits, 10**12, module, "0.0.1"), **changes)


def test_rates_follow_from_cycles():
    facts = made().as_dict()
    assert facts["estimated_clips_per_second"] == pytest.approx(8.0)  # 1.5 GHz: a second
    assert facts["estimated_utilization"] == pytest.approx(6 * 8 / (4 * 197))
    assert facts["hbm_bytes_per_chip"] == 3 * 2**30 and facts["hbm_limit_bytes"] == int(15.75 * 2**30)
    assert made(step="evaluation").utilization == pytest.approx(2 * 8 / (4 * 197))
    pair = made(topology="tpu7x:2x1x1", chips=2).as_dict()  # two devices a chip, and no clock
    assert pair["hbm_bytes_per_chip"] == 6 * 2**30 and pair["estimated_clips_per_second"] is None


def test_what_is_an_estimate_says_so():
    text = "\n".join(lines(made()))
    assert "fits: 3.00 of 15.75 GiB" in text and "8 clips/s" in text and "(all estimates)" in text
    assert "custom kernels, which the compiler does not price: 2 calls; the estimate is too low" in text
    assert "DOES NOT FIT" in "\n".join(lines(made(fits=False)))


@pytest.mark.parametrize("wanted", ["Used 17.5G of 15.75G hbm", "the total required (17.5G) exceeds available HBM"])
def test_what_did_not_fit_is_read_off_the_error(wanted):
    assert _wanted(f"RESOURCE_EXHAUSTED: Ran out of memory. {wanted}.") == 17.5 * 2**30
    with pytest.raises(UserError, match="the compiler fails: INTERNAL"):
        _wanted(f"INTERNAL: {wanted}")


def test_search_keeps_what_is_faster_and_fits(monkeypatch, capsys):
    """Less memory before speed, each change on top of the last that paid."""
    config = from_dict(runs.config_dict("data", train__batch_size=4, evaluation__batch_size=4, model__num_frames=16))
    tried = []

    def plan(candidate, topology, step):
        model, mesh = candidate.model.architecture(), candidate.mesh
        tried.append((mesh, candidate.train, model))
        if candidate.train.accumulate > 1:
            raise UserError("does not divide")
        return made(100 - 10 * (mesh.fsdp == 4) - 20 * (model.remat == "dots"), model.remat != "none")

    monkeypatch.setattr(search, "make_plan", plan)
    best, found = search.fastest(config, made(100, fits=False))
    assert search.flags(best) == [
        "--config.mesh.data=1", "--config.mesh.fsdp=4", "--config.mesh.context=1", "--config.mesh.tensor=1",
        "--config.train.accumulate=1", "--config.model.remat=dots", "--config.model.scan=False",
    ]  # fmt: skip
    assert found.module.cycles == 70 and found.fits and capsys.readouterr().out.count("<- better") == 3
    assert len(tried) >= 6 and len({str(settings) for settings in tried}) == len(tried)
    assert (config.mesh, config.train, config.model.architecture()) not in tried


def command(*flags: str) -> list[str]:
    return [sys.executable, "-m", "vivit_jax.main", "--config=configs/demo.py", "--mode=plan", *flags]


@pytest.mark.parametrize(
    "flags, message",
    [
        ([], "--mode=plan: needs --config and --topology"),
        (["--topology=v9:2x2"], "--topology: 'v9:2x2' is not one of v4, v5e, v5p, v6e, tpu7x with a shape"),
    ],
)
def test_a_slice_has_to_be_named(flags, message):
    assert message in runs.error_line(runs.run(command(*flags)))


def test_without_the_compiler_it_says_what_to_install(monkeypatch):
    def missing(name):
        raise slices.metadata.PackageNotFoundError

    monkeypatch.setattr(slices.metadata, "version", missing)
    with pytest.raises(UserError, match=r"pip install 'vivit_jax\[tpu\]'"):
        slices.slice_devices("v5e:2x2")


libtpu = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")


@libtpu
def test_a_real_plan(tmp_path):
    files = [f"--plan_json={tmp_path / 'plan.json'}", f"--plan_hlo={tmp_path / 'plan.hlo'}"]
    done = runs.run(command("--topology=v5e:2x4", "--config.mesh.fsdp=2", *files))
    assert done.returncode == 0, done.stderr
    facts, text = json.loads((tmp_path / "plan.json").read_text()), (tmp_path / "plan.hlo").read_text()
    assert facts["fits"] and facts["chips"] == 8 and facts["mesh"] == {"data": 4, "fsdp": 2, "context": 1, "tensor": 1}
    assert facts["estimated_cycles_per_step"] == sum(map(int, re.findall(r'"estimated_cycles":"(\d+)"', text))) > 1e5
    assert {"all-reduce", "all-gather"} <= facts["collectives"].keys() and facts["libtpu"]
    assert facts["hbm_bytes_by_kind"]["parameters"] < facts["hbm_bytes_by_kind"]["optimizer"]  # AdamW
    assert "fits: " in done.stdout and "WARNING" not in done.stderr


@libtpu
def test_a_plan_of_evaluation_and_one_that_does_not_fit():
    done = runs.run(command("--topology=v6e:2x2", "--plan_step=evaluation"))
    assert "evaluation step of 64 clips" in done.stdout, done.stderr
    done = runs.run(command("--topology=v5e:2x2", "--config.train.batch_size=131072"))
    assert "DOES NOT FIT" in done.stdout, done.stdout + done.stderr


@libtpu
def test_a_slice_that_is_not_there():
    assert "--topology: there is no 'v5e:3x5'" in runs.error_line(runs.run(command("--topology=v5e:3x5")))
