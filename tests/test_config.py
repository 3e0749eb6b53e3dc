"""Configurations: the published ones, and mistakes, each one line that names the key."""

import dataclasses
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import runs
from vivit_jax.config import from_dict, to_dict
from vivit_jax.errors import UserError
from vivit_jax.training.optimizer import make_optimizer, make_schedule
from vivit_jax.training.step import make_state, train_step_fn
from vivit_jax.variants import preprocessing

CONFIGS = sorted((runs.REPOSITORY / "configs").glob("*.py"))


def load(name: str):
    spec = importlib.util.spec_from_file_location(name, runs.REPOSITORY / "configs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_is_valid_and_survives_json(path):
    config = from_dict(load(path.stem))
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config


def test_k400_fe_builds_its_model_and_step_at_full_size():
    config = from_dict(load("k400_fe"))
    model = config.model.architecture()
    feeding = preprocessing(config.model.name, model)
    schedule = make_schedule(config.schedule, 3356.0, 100_680)
    optimizer = make_optimizer(config.optimizer, schedule)
    graph, init = make_state(config, model, feeding, optimizer)
    state = jax.eval_shape(init)
    assert sum(x.size for x in jax.tree.leaves(state["params"])) == 115_062_928
    batch = {
        "video": jax.ShapeDtypeStruct((64, 32, 224, 224, 3), jnp.uint8),
        "label": jax.ShapeDtypeStruct((64,), jnp.int32),
        "weight": jax.ShapeDtypeStruct((64,), jnp.float32),
        "fault": jax.ShapeDtypeStruct((64,), jnp.int32),
    }
    new, metrics = jax.eval_shape(train_step_fn(config, graph, feeding, optimizer, schedule), state, batch)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), new) == jax.tree.map(lambda x: (x.shape, x.dtype), state)
    assert set(metrics) == {"loss", "top_1", "grad_norm", "learning_rate", "dropped"}
    # The released schedule: 2.5 epochs of warm-up, then a cosine over what is left.
    for step, rate in ((0, 0.0), (100, 5.95947553e-04), (8390, 0.05), (33560, 4.13715206e-02), (100678, 0.0)):
        assert float(schedule(step)) == pytest.approx(rate, rel=1e-4, abs=1e-7)


def test_a_run_shorter_than_its_warm_up_ends_at_the_rate():
    changes = dict(schedule__name="cosine", schedule__learning_rate=0.5, schedule__warmup_epochs=2.5)
    schedule = make_schedule(from_dict(runs.config_dict(Path("x"), **changes)).schedule, 4.0, 5)  # of 10 steps
    assert [float(schedule(step)) for step in range(5)] == pytest.approx([0.0, 0.125, 0.25, 0.375, 0.5])


def test_step_schedule():
    config = from_dict(runs.config_dict(Path("x"), schedule__name="step", schedule__step_epochs=(11.0, 14.0),
                                        schedule__learning_rate=0.005, schedule__warmup_epochs=0.0))  # fmt: skip
    schedule = make_schedule(config.schedule, 10.0, 150)
    assert [float(schedule(step)) for step in (0, 109, 111, 141)] == pytest.approx([5e-3, 5e-3, 5e-4, 5e-5])
    schedule = make_schedule(config.schedule, 0.1, 2)  # both round to the first step
    assert [float(schedule(step)) for step in (0, 1)] == pytest.approx([5e-3, 5e-5])


@pytest.mark.parametrize("name, moves_by", [("sgd", 0.1), ("adamw", 0.1)])
def test_weight_decay_spares_what_its_pattern_names(name, moves_by):
    changes = dict(optimizer__name=name, optimizer__weight_decay=0.1, optimizer__momentum=0.0)
    config = from_dict(runs.config_dict(Path("x"), **changes))
    params = {"mlp": {"kernel": jnp.ones(3), "bias": jnp.ones(3)}, "norm": {"scale": jnp.ones(3)}}
    optimizer = make_optimizer(config.optimizer, lambda _: 1.0)
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    np.testing.assert_allclose(updates["mlp"]["kernel"], -moves_by, atol=1e-6)
    assert not updates["mlp"]["bias"].any() and not updates["norm"]["scale"].any()
    everywhere = make_optimizer(dataclasses.replace(config.optimizer, no_decay=""), lambda _: 1.0)
    updates, _ = everywhere.update(jax.tree.map(jnp.zeros_like, params), everywhere.init(params), params)
    for update in jax.tree.leaves(updates):
        np.testing.assert_allclose(update, -moves_by, atol=1e-6)


def test_the_global_gradient_is_clipped():
    config = from_dict(runs.config_dict(Path("x"), optimizer__name="sgd", optimizer__clip_norm=1.0,
                                        optimizer__weight_decay=0.0))  # fmt: skip
    params = {"a": jnp.zeros(3), "b": jnp.zeros(4)}
    gradients = {"a": jnp.full(3, 3.0), "b": jnp.full(4, -4.0)}
    optimizer = make_optimizer(config.optimizer, lambda _: 1.0)
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    norm = np.sqrt(3 * 9 + 4 * 16)
    np.testing.assert_allclose(updates["a"], -3 / norm, rtol=1e-5)
    np.testing.assert_allclose(updates["b"], 4 / norm, rtol=1e-5)


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(model__image_size=50), r"model\.image_size: height 50 does not divide into patches of 16 pixels"),
        (dict(model__num_frames=0), r"model\.num_frames: 0"),
        (dict(model__attention="dividd"), r"model\.attention: 'dividd' is none of"),
        (dict(model__name="vivit_b16x2_fee"), r"model\.name: .*did you mean 'vivit_b16x2_fe'"),
        (dict(model__name=None), r"config\.model\.name: is not set"),
        (dict(train__batch_size=0), r"config\.train\.batch_size: 0"),
        (dict(train__accumulate=3), r"config\.train\.accumulate: 3 does not divide batch_size 16"),
        (dict(train__epochs=0.0), r"config\.train\.epochs: 0\.0"),
        (dict(data__stride=0.0), r"config\.data\.stride: .* set one of the two above 0, not both"),
        (
            dict(data__sampling="whole", evaluation__clips=2),
            r"config\.evaluation\.clips: 2 with config\.data\.sampling",
        ),
        (dict(data__short_clips="lop"), r"config\.data\.short_clips: 'lop' is none of 'loop', 'hold'"),
        (dict(data__crop_area=(0.5, 0.2)), r"config\.data\.crop_area"),
        (dict(data__eval_resize=16), r"config\.data\.eval_resize: 16 is below the crop of 32 pixels"),
        (dict(data__name=None), r"config\.data\.name: is not set"),
        (dict(augment__flip=2.0), r"config\.augment\.flip: 2\.0"),
        (dict(optimizer__name="adam"), r"config\.optimizer\.name: 'adam' is none of 'sgd', 'adamw'"),
        (dict(schedule__step_epochs=(3.0,)), r"config\.schedule\.step_epochs"),
        (dict(schedule__name="step", schedule__step_epochs=(1.0, 1.0)), r"config\.schedule\.step_epochs: .* must rise"),
        (dict(schedule__step_factor=-1.0), r"config\.schedule\.step_factor: -1\.0 must be above 0"),
        (dict(train__epochs=float("inf")), r"config\.train\.epochs: inf is not a finite number"),
        (dict(model__dropout=float("nan")), r"model\.dropout: nan is not a finite number"),
        (dict(model__num_classes={"head": 2}), r"model\.num_classes: \{'head': 2\}; a single head has a plain number"),
        (dict(evaluation__splits=(), train__eval_every_epochs=1.0), r"config\.evaluation\.splits: \(\) is nothing to"),
        (dict(mesh__fsdp=-1), r"config\.mesh\.fsdp"),
        (dict(seed="zero"), r"config\.seed: 'zero' is not int"),
        (dict(seed=-1), r"config\.seed: -1 must be from 0"),
    ],
    ids=str,
)
def test_impossible_values_name_the_key(changes, message):
    with pytest.raises(UserError, match=message):
        from_dict(runs.config_dict(Path("x"), **changes))


def test_unknown_keys_name_the_nearest():
    values = to_dict(from_dict(runs.config_dict(Path("x"))))
    values["train"]["epoch"] = 3.0
    with pytest.raises(UserError, match=r"config\.train\.epoch: no such key; did you mean 'epochs'"):
        from_dict(values)
    values["train"].pop("epoch")
    with pytest.raises(UserError, match=r"model\.widht: no such field; did you mean 'width'"):
        from_dict(values | {"model": values["model"] | {"widht": 3}})


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--config.train.epoch=3"], "config.train.epoch: no such key; did you mean 'epochs'?"),
        (["--config.trian.epochs=3"], "config.trian.epochs: no such key; did you mean 'train'?"),
        (["--config.model.num_frames=7"], "model.num_frames: 7 frames"),
        (["--config.model.width=wide"], "config.model.width"),
        (["--mode=trian"], "mode=trian"),
        (["--confg=x"], "confg"),
        (["stray"], "'stray'"),
        (["--config=configs/nowhere.py"], "error: --config: No such file or directory: 'configs/nowhere.py'"),
        (["--config.data.name=nothing", "--config.data.generator="], "there is no dataset at"),
    ],
    ids=str,
)
def test_command_line_mistakes_are_one_line(tmp_path, flags, message):
    config = [] if any(flag.startswith("--config=") for flag in flags) else ["--config=configs/demo.py"]
    workdir = tmp_path / "run"
    result = runs.run([sys.executable, "-m", "vivit_jax.main", *config, f"--workdir={workdir}", *flags])
    assert message in runs.error_line(result)
    assert result.stdout == "" and len(result.stderr.strip().splitlines()) == 1
    assert not workdir.exists()


def test_config_and_workdir_are_needed():
    result = runs.run([sys.executable, "-m", "vivit_jax.main", "--config=configs/demo.py"])
    assert "--config and --workdir are both needed" in runs.error_line(result)


def test_importing_the_package_does_not_import_jax():
    program = "import vivit_jax.main, sys; print('jax' in sys.modules, 'tensorflow' in sys.modules)"
    output = subprocess.check_output([sys.executable, "-c", program], text=True, cwd=runs.REPOSITORY)
    assert output.split() == ["False", "False"]
