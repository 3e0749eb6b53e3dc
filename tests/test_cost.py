"""The multiply-adds of every config do not grow unnoticed."""

import importlib.util
import json

import pytest

import runs
from vivit_jax.config import from_dict
from vivit_jax.summary import cost

RESULTS = runs.REPOSITORY / "benchmarks" / "results"
CONFIGS = sorted(path.stem for path in (runs.REPOSITORY / "configs").glob("*.py"))


@pytest.mark.parametrize("name", CONFIGS)
def test_multiply_adds_are_those_of_the_published_plans(name):
    plan = json.loads((RESULTS / "plans.json").read_text())[f"{name} on v5e:16x16"]
    spec = importlib.util.spec_from_file_location(name, runs.REPOSITORY / "configs" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = from_dict(module.get_config())
    model = config.model.architecture()
    assert cost(model)[1] == pytest.approx(plan["multiply_adds_per_clip"], rel=0.03)
