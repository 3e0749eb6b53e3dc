"""One step on every kind of mesh: the numbers of a single device, and no more traffic than it needs."""

import functools
import re
import signal

import jax
import numpy as np
import pytest

import runs
import vivit_jax
from models import ALL, TINY
from vivit_jax.checkpoints.parameters import paths
from vivit_jax.checkpoints.training import saved_steps
from vivit_jax.config import from_dict
from vivit_jax.models import dot_product_attention, layout, sums
from vivit_jax.models.attention import SCHEMES
from vivit_jax.training import loop
from vivit_jax.training.program import assemble
from vivit_jax.training.sharding import to_devices

MESHES = {
    "data": dict(data=8),
    "fsdp": dict(fsdp=8),
    "data + fsdp": dict(data=2, fsdp=4),
    "tensor": dict(data=4, tensor=2),
    "context": dict(data=2, context=4),
    "all": dict(data=1, fsdp=2, context=2, tensor=2),
}
CLASSES = 5
DROPPING = {"vivit_ti16x2_fe": dict(stochastic_depth=0.2, num_layers=2), "timesformer_b": dict(dropout=0.1)}
# CLS has nothing of what a last attention over time gives to the patches.
FIELDS = DROPPING | {"space, then time": dict(num_layers=2), "parallel": dict(num_layers=2)}


def program(case: str, mesh: dict[str, int], count: int = 8, **model):
    """Of a tiny model of 8 time steps, with a batch of 8."""
    name, fields = ALL[case]
    plan = runs.config_dict(
        "data", model__name=name, train__batch_size=8, evaluation__batch_size=8, augment__jitter=0.0
    )
    sizes = dict(TINY, num_frames=8, tubelet_size=1, num_layers=1) | fields | model
    for key, value in sizes.items():
        with plan.model.ignore_type():
            plan.model[key] = value
    if "fe" not in name:
        plan.model.temporal_layers = None
    plan.data.eval_resize = 32
    plan.optimizer.update(name="sgd", clip_norm=1.0)
    plan.schedule.update(learning_rate=1.0, warmup_epochs=0.0)
    plan.mesh.update(dict(data=1, fsdp=1, context=1, tensor=1) | mesh)
    config = from_dict(plan)
    return assemble(config, config.model.architecture(CLASSES), 64, jax.devices()[:count])


def batch(size: int = 8):
    rng = np.random.default_rng(0)
    video = rng.integers(0, 256, (size, 8, 32, 32, 3), np.uint8)
    weight, fault = np.ones(size, np.float32), np.zeros(size, np.int32)
    return {"video": video, "label": rng.integers(0, CLASSES, size, np.int32), "weight": weight, "fault": fault}


def one_step(run):
    """Loss, and by how much the parameters are changed, from parameters that are all random."""
    shapes = run.abstract_state()

    def start(x, key):
        return 0.3 * jax.random.normal(key, x.shape, x.dtype) if x.ndim and x.dtype == np.float32 else np.zeros_like(x)

    state = jax.jit(run.init)()
    leaves, tree = jax.tree.flatten(state["params"])
    keys = jax.random.split(jax.random.key(3), len(leaves))
    params = jax.tree.unflatten(tree, [np.asarray(start(x, key)) for x, key in zip(leaves, keys)])
    state = jax.tree.map(lambda x, like: jax.device_put(x, like.sharding), {**state, "params": params}, shapes)
    placed = to_devices(batch(), run.mesh, 8)
    compiled = run.train_step().lower(state, placed).compile()
    new, metrics = compiled(state, placed)
    changes = jax.tree.map(lambda a, b: np.asarray(a) - b, new["params"], params)
    return float(metrics["loss"]), changes, compiled.as_text()


COLLECTIVE = re.compile(r"= (.*?) (all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(")


def collectives(text: str) -> list[tuple[str, int]]:
    """Kind, and elements of its result, of every one in a compiled step."""
    found = []
    for shapes, kind in COLLECTIVE.findall(text):
        sizes = [np.prod([int(n) for n in dims.split(",") if n]) for dims in re.findall(r"\w+\[([\d,]*)\]", shapes)]
        found.append((kind, int(max(sizes))))
    return found


def compare(run, alone) -> list[tuple[str, int]]:
    """Holds a step on a mesh against that of one device; returns its collectives."""
    loss, changes, _ = alone
    other_loss, other, text = one_step(run)
    assert max(np.abs(change).max() for change in jax.tree.leaves(changes)) > 1e-2
    assert other_loss == pytest.approx(loss, abs=1e-5)
    for a, b in zip(jax.tree.leaves(changes), jax.tree.leaves(other)):
        np.testing.assert_allclose(a, b, atol=1e-5)
    return collectives(text)


@pytest.fixture(scope="module")
def alone():
    """A step of each model on one device."""
    return functools.cache(lambda case: one_step(program(case, {}, 1, **FIELDS.get(case, {}))))


OTHERWISE = [  # with the chips on which more is
    ("timesformer_b", "data", ("cpu",)),
    ("timesformer_b", "data + fsdp", ()),
    ("timesformer_b", "context", ()),
    ("vivit_ti16x2_fdpa", "all", ()),
    ("vivit_ti16x2_fsa", "data", ("cpu",)),
    ("vivit_ti16x2_fsa", "fsdp", ("cpu",)),
]


@pytest.mark.parametrize("case, mesh, fast", OTHERWISE)
def test_what_tpus_compute_otherwise_is_the_same_on_a_mesh(case, mesh, fast, alone, monkeypatch):
    """Their branches, on CPUs; two positions fill a tile."""
    expected = alone(case)
    jax.clear_caches()
    monkeypatch.setattr(
        jax.lax, "platform_dependent", lambda *args, tpu=None, default=None, **_: (tpu or default)(*args)
    )
    monkeypatch.setattr(dot_product_attention, "TILE", 16)
    monkeypatch.setattr(layout, "FAST_MATRIX_UNITS", fast)
    # On CPUs XLA fuses a product and the greatest of a row, and reads there what nothing has written; rows are of one
    # device anyway. test_layer_norm.py has them one step at a time.
    greatest = sums._one_of_eight
    monkeypatch.setattr(sums, "_one_of_eight", lambda x, axis: greatest(x, axis) if axis == 0 else x[..., :1])
    compare(program(case, MESHES[mesh], **FIELDS.get(case, {})), expected)
    jax.clear_caches()


QUICK = {(case, mesh) for case in DROPPING for mesh in ("data + fsdp", "context")}
QUICK |= {("vivit_ti16x2", "all"), ("vivit_ti16x2_fdpa", "all"), ("timesformer_b", "tensor")}
PAIRS = [
    pytest.param(case, mesh, marks=() if (case, mesh) in QUICK else pytest.mark.slow) for case in ALL for mesh in MESHES
]


@pytest.mark.parametrize("case, mesh", PAIRS)
def test_a_step_is_the_same_on_every_mesh(case, mesh, alone):
    """Loss and new parameters are; of activations none is gathered, and time is exchanged where it is attended over."""
    run = program(case, MESHES[mesh], **FIELDS.get(case, {}))
    found = compare(run, alone(case))
    kinds, gathered = {kind for kind, _ in found}, [n for kind, n in found if kind == "all-gather"]
    assert "all-reduce" in kinds
    if mesh in ("data", "tensor") and "fdpa" not in case:
        assert kinds == {"all-reduce"}
    assert "all-gather" in kinds or not run.config.mesh.fsdp > 1
    # The largest parameter; a device's tokens, gathered over any axis, would be more.
    assert max(gathered, default=0) <= 4608
    attends = any(
        "time" in axes or axes in ("joint", "local", "global")
        for step in SCHEMES[run.model.attention].steps
        for axes in step.axes
    )
    if run.config.mesh.context > 1:
        assert ("all-to-all" in kinds) == (attends or run.model.attention == "factorized_encoder")


def test_a_scanned_step_is_the_same_on_a_mesh(alone):
    """As unrolled on one device, with every axis split and something dropped."""
    case = "vivit_ti16x2_fe"
    compare(program(case, MESHES["all"], scan=True, **FIELDS[case]), alone(case))


def test_a_run_goes_on_on_another_mesh(data_dir, tmp_path, monkeypatch):
    """Stopped after step 2 of 6 on data x context, it ends on fsdp x tensor where one mesh would have ended."""

    def asked_to_end(*arguments):
        signal.raise_signal(signal.SIGTERM)

    plain = dict(augment__jitter=0.0, augment__flip=0.0, augment__grayscale=0.0, optimizer__name="sgd")
    first, then = dict(mesh__data=4, mesh__context=2), dict(mesh__fsdp=4, mesh__data=1, mesh__context=1, mesh__tensor=2)
    loop.train(runs.config(data_dir, **plain), tmp_path / "one")
    with monkeypatch.context() as patch:
        patch.setattr(loop.Evaluator, "__call__", asked_to_end)
        loop.train(runs.config(data_dir, **plain, **first, train__eval_every_epochs=1.0), tmp_path / "two")
    assert saved_steps(tmp_path / "two") == [2]
    loop.train(runs.config(data_dir, **plain, **then, train__eval_every_epochs=1.0), tmp_path / "two")
    one, two = (paths(vivit_jax.load_model(tmp_path / name)) for name in ("one", "two"))
    for name, value in one.items():
        np.testing.assert_allclose(two[name], value, atol=1e-5, err_msg=name)
