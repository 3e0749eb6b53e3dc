"""Layers that learn more slowly the deeper they lie, and parameters that stay as they are."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import runs
import vivit_jax
from models import fed, make
from test_training import assert_equal, final_state
from vivit_jax.checkpoints.initialize import config_for
from vivit_jax.checkpoints.parameters import paths
from vivit_jax.config import from_dict, to_dict
from vivit_jax.errors import UserError
from vivit_jax.sections import Optimizer
from vivit_jax.training import loop
from vivit_jax.training.optimizer import layer_depths, make_optimizer
from vivit_jax.training.run import open_run


def optimizer(**changes):
    changes = {f"optimizer__{name}": value for name, value in changes.items()}
    return make_optimizer(runs.config(Path("x"), **changes).optimizer, lambda _: 1e-3)


def random_like(params, seed):
    keys = iter(jax.random.split(jax.random.key(seed), len(jax.tree.leaves(params))))
    return jax.tree.map(lambda x: jax.random.normal(next(keys), x.shape), params)


DEPTHS = {
    "timesformer_b": {
        "embedding/kernel": 0, "encoder/cls": 0, "encoder/positions/time": 0, "encoder/blocks/0/mlp/up/bias": 1,
        "encoder/blocks/1/attention/0/project/kernel": 2, "encoder/norm/scale": 3, "heads/head/kernel": 3,
    },
    "vivit_ti16x2_fe": {
        "embedding/bias": 0, "encoder/positions/cls": 0, "encoder/blocks/1/mlp/norm/scale": 2, "encoder/norm/scale": 2,
        "temporal_encoder/cls": 2, "temporal_encoder/positions/space": 2, "temporal_encoder/blocks/0/mlp/up/kernel": 3,
        "temporal_encoder/blocks/1/mlp/up/kernel": 4, "temporal_encoder/norm/bias": 5, "heads/head/bias": 5,
    },
}  # fmt: skip


@pytest.mark.parametrize("case, name", zip(DEPTHS, ("sgd", "adamw")))
def test_layer_decay_scales_what_each_layer_learns(case, name):
    """After three steps every parameter has moved by decay^(top - depth) of what it would have without."""
    params = nnx.to_pure_dict(nnx.state(make(case), nnx.Param))
    depths, top = layer_depths(params)
    depths = paths(depths)
    assert {path: depths[path] for path in DEPTHS[case]} == DEPTHS[case] and top == max(DEPTHS[case].values())
    moved = []
    for decay in (1.0, 0.5):
        transform = optimizer(name=name, layer_decay=decay, weight_decay=0.1)
        state, total = transform.init(params), jax.tree.map(jnp.zeros_like, params)
        for step in range(3):
            updates, state = transform.update(random_like(params, step), state, params)
            total = optax.tree.add(total, updates)
        moved.append(paths(total))
    for path, whole in moved[0].items():
        np.testing.assert_allclose(moved[1][path], whole * 0.5 ** (top - depths[path]), rtol=1e-5, err_msg=path)


def test_layer_decay_counts_what_is_frozen():
    """A block learns as slowly where those above it stay as they are."""
    params = {"encoder": {"blocks": {str(block): {"bias": jnp.ones(())} for block in range(4)}}}
    for freeze, wanted in (("", [1 / 16, 1 / 8, 1 / 4, 1 / 2]), ("blocks/[23]/", [1 / 16, 1 / 8, 0, 0])):
        transform = optimizer(name="sgd", layer_decay=0.5, freeze=freeze, clip_norm=0.0)
        updates, _ = transform.update(params, transform.init(params), params)
        np.testing.assert_allclose(jax.tree.leaves(updates), -1e-3 * np.array(wanted), rtol=1e-5)


FREEZE = "^(embedding|encoder/)"


def trained(params):
    return {path: x for path, x in paths(params).items() if not path.startswith(("embedding", "encoder/"))}


@pytest.mark.parametrize("name, copies", [("sgd", 1), ("adamw", 2)])
def test_frozen_parameters_hold_no_state(data_dir, tmp_path, name, copies):
    state = open_run(runs.config(data_dir, optimizer__freeze=FREEZE, optimizer__name=name), tmp_path).abstract_state()
    moments = [x for x in jax.tree.leaves(state["opt_state"]) if x.ndim]
    assert {x.shape for x in moments} == {x.shape for x in trained(state["params"]).values()}
    assert sum(x.size for x in moments) == copies * sum(x.size for x in trained(state["params"]).values())


def test_frozen_parameters_stay_as_they_are(data_dir, tmp_path):
    options = dict(optimizer__freeze=FREEZE, train__epochs=2.0, schedule__warmup_epochs=0.0)
    config = runs.config(data_dir, **options)
    before = paths(open_run(config, tmp_path).new_state()["params"])
    loop.train(config, tmp_path)
    after = paths(final_state(config, tmp_path)["params"])  # from its checkpoint
    for path in before:
        if path.endswith("key/bias"):
            continue  # adds the same to all logits of a query: no gradient but rounding
        moved = np.abs(np.asarray(before[path]) - after[path]).max()
        assert moved > 1e-4 if path in trained(before) else moved == 0, path


def test_the_gradient_of_what_is_frozen_has_no_share_in_the_norm(data_dir, tmp_path):
    """What is trained moves as if the rest were no parameters at all."""
    params = {"a": jnp.ones(3), "b": {"kernel": jnp.ones((2, 2))}}
    gradients = {"a": jnp.full(3, 100.0), "b": {"kernel": jnp.full((2, 2), 3.0)}}
    both = optimizer(name="sgd", freeze="^a$", weight_decay=0.1)
    alone = optimizer(name="sgd", weight_decay=0.1)
    updates, _ = both.update(gradients, both.init(params), params)
    wanted, _ = alone.update({"b": gradients["b"]}, alone.init({"b": params["b"]}), {"b": params["b"]})
    assert_equal(updates, {"a": jnp.zeros(3), **wanted})


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(optimizer__freeze="blocks/17/"), r"config\.optimizer\.freeze: 'blocks/17/' names no parameter"),
        (dict(optimizer__freeze="."), r"config\.optimizer\.freeze: '\.' names every parameter"),
        (dict(optimizer__freeze="("), r"config\.optimizer\.freeze: '\(' is not a regular expression"),
        (dict(optimizer__layer_decay=1.5), r"config\.optimizer\.layer_decay: 1\.5 must be above 0, and at most 1"),
    ],
)
def test_what_cannot_be_frozen_or_decayed_is_an_error(data_dir, tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        open_run(runs.config(data_dir, **changes), tmp_path)


def test_layer_decay_is_for_what_starts_from_other_weights(data_dir, tmp_path, capsys):
    config = runs.config(data_dir, optimizer__layer_decay=0.5)
    assert open_run(config, tmp_path).config.optimizer.layer_decay == 1
    assert "All layers learn alike: config.optimizer.layer_decay 0.5" in capsys.readouterr().out
    runs.untrained(runs.config(data_dir), tmp_path / "other")
    started = runs.config(data_dir, optimizer__layer_decay=0.5, init_from=str(tmp_path / "other"))
    assert open_run(started, tmp_path / "run").config.optimizer.layer_decay == 0.5


def test_class_names_go_from_the_workdir_to_what_is_saved(data_dir, tmp_path):
    runs.untrained(runs.config(data_dir), tmp_path / "run")
    model = vivit_jax.load_model(tmp_path / "run")
    assert len(model.labels) == 8 and "grow" in model.labels
    vivit_jax.save_pretrained(model, tmp_path / "saved")
    assert vivit_jax.load_model(tmp_path / "saved").labels == model.labels


@pytest.mark.parametrize("name", ["vivit_ti16x2_fe", "timesformer_b"])
def test_a_config_for_a_checkpoint_sees_and_starts_as_it_does(data_dir, tmp_path, name):
    feeding = dict(sampling="segments", short_clips="hold", stride=0.0, target_fps=7.5)
    saved = fed(make(name, classes=3, image_size=(32, 48)), **feeding, resize=40, image_size=(32, 48))
    vivit_jax.save_pretrained(saved, tmp_path / "model")
    values, longer = config_for(tmp_path / "model"), config_for(tmp_path / "model", num_frames=20)
    for one in values, longer:
        one.data.update(name="tiny", data_dir=str(data_dir))
    assert from_dict(longer).model.architecture().num_frames == 20
    config = from_dict(values)
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config  # so that the run can be started again
    run = open_run(config, tmp_path / "run")
    assert run.model == dataclasses.replace(saved.config, num_classes=8)
    assert {key: getattr(config.data, key) for key in feeding} == feeding and config.data.eval_resize == 40
    taken, theirs = paths(run.new_state()["params"]), paths(saved)
    different = {path for path, value in theirs.items() if path not in taken or value.shape != taken[path].shape}
    assert different == {"heads/head/kernel", "heads/head/bias"} and config.init_from == str(tmp_path / "model")
    for path in theirs.keys() - different - {"embedding/kernel", "embedding/bias"}:  # which another normalization moves
        np.testing.assert_allclose(taken[path], theirs[path], atol=1e-6, err_msg=path)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_momentum_in_bfloat16_takes_half_and_moves_alike(name):
    """The first moment alone; parameters and the second stay float32."""
    params = {"kernel": jax.random.normal(jax.random.key(0), (16, 8))}
    grads = {"kernel": jax.random.normal(jax.random.key(1), (16, 8))}
    moved = {}
    for dtype in ("float32", "bfloat16"):
        settings = Optimizer(name=name, momentum_dtype=dtype, clip_norm=0.0)
        optimizer = make_optimizer(settings, lambda _: 0.1)
        state = optimizer.init(params)
        kinds = sorted(str(x.dtype) for x in jax.tree.leaves(state) if x.shape == (16, 8))
        assert kinds == sorted([dtype] + ["float32"] * (name == "adamw"))
        for _ in range(2):
            updates, state = optimizer.update(grads, state, params)
        moved[dtype] = updates["kernel"]
        assert moved[dtype].dtype == jnp.float32
    np.testing.assert_allclose(moved["bfloat16"], moved["float32"], rtol=0.02, atol=1e-3)
    assert np.abs(moved["bfloat16"] - moved["float32"]).max() > 0
