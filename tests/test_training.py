"""Training end to end: resuming, sharding, accumulation, what ends a run, in this process and in real ones."""

import json
import resource
import subprocess
import time
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

import runs
from vivit_jax.checkpoints.training import Checkpoints
from vivit_jax.errors import UserError
from vivit_jax.evaluation.multiview import Pass
from vivit_jax.training import loop, reporter
from vivit_jax.training.preemption import Preempted
from vivit_jax.training.run import Run, open_run


def final_state(config, workdir):
    run = open_run(config, workdir)
    checkpoints = Checkpoints(workdir, 1)
    _, state = run.resume(checkpoints)
    checkpoints.close()
    return jax.device_get(state)


def assert_equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_training_learns_and_writes_everything(data_dir, tmp_path, capsys):
    model = dict(model__patch_size=8, model__width=64, model__num_heads=4, model__mlp_dim=128)
    plain = dict(data__crop_area=(0.99, 1.0), augment__flip=0.0, augment__jitter=0.0, augment__grayscale=0.0)
    config = runs.config(data_dir, **model, **plain, train__epochs=40.0, train__eval_every_epochs=20.0)
    loop.train(config, tmp_path)
    losses = [line["train/loss"] for line in runs.log(tmp_path)]
    assert len(losses) == 80 and np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.1
    metrics = runs.metrics(tmp_path)
    assert metrics["step"] == 80 and metrics["validation"]["num_videos"] == 24 and metrics["validation"]["views"] == 1
    assert [line["step"] for line in runs.log(tmp_path, "validation/")] == [40]
    assert json.loads((tmp_path / "config.json").read_text())["model"]["width"] == 64
    assert list(tmp_path.glob("events.out.tfevents.*"))
    assert "on 24 videos x 1 views" in capsys.readouterr().out


def test_an_evaluation_in_between_is_not_taken_for_slow_training(data_dir, tmp_path, monkeypatch):
    """By a clock that it puts an hour forward."""
    ahead, evaluate = [0.0], loop._evaluate_on_the_way

    def slowly(*args):
        evaluate(*args)
        ahead[0] += 3600

    monkeypatch.setattr(loop, "_evaluate_on_the_way", slowly)
    monkeypatch.setattr(reporter, "time", SimpleNamespace(perf_counter=lambda: time.perf_counter() + ahead[0]))
    config = runs.config(data_dir, train__epochs=3.0, train__eval_every_epochs=1.0)
    loop.train(config, tmp_path)
    speeds = [line["train/clips_per_second"] for line in runs.log(tmp_path)]
    assert len(speeds) == 6 and ahead == [7200]
    assert min(speeds) > config.train.batch_size / 600


def test_an_evaluation_that_was_interrupted_is_made_up_for(data_dir, tmp_path, monkeypatch):
    config = runs.config(data_dir, train__epochs=3.0, train__eval_every_epochs=1.0, train__checkpoint_every=2)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "_evaluate_on_the_way", lambda run, *_: (_ for _ in ()).throw(Preempted()))
        loop.train(config, tmp_path)  # ends within the first
    assert not runs.log(tmp_path, "validation/") and not (tmp_path / "metrics.json").exists()
    loop.train(config, tmp_path)
    assert [line["step"] for line in runs.log(tmp_path, "validation/")] == [2, 4]
    assert [line["step"] for line in runs.log(tmp_path)] == [1, 2, 3, 4, 5, 6]


def test_a_part_of_a_step_between_evaluations_is_a_step(data_dir, tmp_path):
    loop.train(runs.config(data_dir, train__epochs=1.5, train__eval_every_epochs=0.1), tmp_path)
    assert [line["step"] for line in runs.log(tmp_path, "validation/")] == [1, 2]  # of three


def test_a_finished_run_says_so_and_another_config_is_refused(data_dir, tmp_path, capsys):
    config = runs.config(data_dir, train__epochs=1.0)
    loop.train(config, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    loop.train(config, tmp_path)
    assert "finished run of 2 steps" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    other = runs.config(data_dir, train__epochs=1.0, schedule__learning_rate=0.5, model__width=24)
    with pytest.raises(UserError, match=r"config.model.width: 16 -> 24; config.schedule.learning_rate: 0.003 -> 0.5"):
        loop.train(other, tmp_path)
    loop.evaluate(runs.config(data_dir, train__epochs=1.0, evaluation__clips=2), tmp_path)  # does not change the run
    assert runs.metrics(tmp_path)["validation"]["views"] == 2


@pytest.mark.parametrize(
    "changes",
    [
        dict(train__accumulate=2),
        pytest.param(dict(model__scan=True, model__remat="full"), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_how_it_is_computed_changes_nothing(data_dir, tmp_path, changes):
    """Accumulated, scanned: the same run up to rounding."""
    shared = dict(augment__jitter=0.0, augment__flip=0.0, augment__grayscale=0.0, optimizer__name="sgd")
    states = []
    for name, options in (("plain", {}), ("other", changes)):
        config = runs.config(data_dir, **shared, **options)
        loop.train(config, tmp_path / name)
        states.append(final_state(config, tmp_path / name)["params"])
    for a, b in zip(*map(jax.tree.leaves, states)):
        np.testing.assert_allclose(a, b, atol=2e-5)


def test_fsdp_shards_parameters_and_optimizer(data_dir, tmp_path):
    run = open_run(runs.config(data_dir, mesh__data=2, mesh__fsdp=4), tmp_path)
    state = run.new_state()
    kernel = state["params"]["encoder"]["blocks"][0]["mlp"]["up"]["kernel"]
    assert {shard.data.shape for shard in kernel.addressable_shards} == {(16, 8)}
    moments = [x for x in jax.tree.leaves(state["opt_state"]) if x.shape == (16, 32)]
    assert moments and all(x.addressable_shards[0].data.shape == (16, 8) for x in moments)


def test_ema_is_evaluated(data_dir, tmp_path):
    config = runs.config(data_dir, train__epochs=2.0, train__ema=0.5)
    loop.train(config, tmp_path)
    state = final_state(config, tmp_path)
    difference = jax.tree.map(lambda a, b: np.abs(a - b).max(), state["ema"], state["params"])
    assert max(jax.tree.leaves(difference)) > 1e-4
    metrics = runs.metrics(tmp_path)["validation"]
    checkpoints = Checkpoints(tmp_path, 1)
    checkpoints.close()
    run = open_run(config, tmp_path)
    evaluator = loop.Evaluator(config, run.graph, run.mesh, state["ema"], tmp_path)
    assert evaluator(state["ema"], run.dataset.source("validation"), "validation") == metrics


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(data_dir, tmp_path):
    config = runs.config(data_dir, schedule__learning_rate=1e30, schedule__warmup_epochs=0.0, optimizer__name="sgd",
                         optimizer__clip_norm=0.0, train__checkpoint_every=1, train__epochs=10.0)  # fmt: skip
    with pytest.raises(UserError, match=r"step \d+: the loss is .*last good checkpoint is step \d+; lower"):
        loop.train(config, tmp_path)
    state = ocp.CheckpointManager(tmp_path / "checkpoints")
    assert state.latest_step() == runs.log(tmp_path)[-1]["step"]
    assert not (tmp_path / "metrics.json").exists()


def test_what_does_not_fit_is_named_before_anything_starts(data_dir, tmp_path):
    for changes, message in [
        (dict(train__batch_size=12, mesh__data=8), r"config\.train\.batch_size: 12 does not divide over 8 devices"),
        (dict(evaluation__batch_size=12), r"config\.evaluation\.batch_size: 12 does not divide over 8 devices"),
        (dict(mesh__data=3), r"config\.mesh: data 3 x fsdp 1 x context 2 x tensor 1 does not make 8 devices"),
        (dict(mesh__data=1, mesh__context=8), r"config\.mesh\.context: 8 does not divide frames and time steps, whose"),
        (dict(mesh__data=1, mesh__tensor=8, mesh__context=1), r"config\.mesh\.tensor: 8 does not divide heads"),
        (dict(evaluation__splits=("test",)), r"no split 'test', only train, validation; .* config\.evaluation\.splits"),
    ]:
        with pytest.raises(UserError, match=message):
            loop.train(runs.config(data_dir, **changes), tmp_path / "run")
    with pytest.raises(UserError, match=r"config\.model\.num_classes: 5, but 'tiny' has 8"):
        loop.train(runs.config(data_dir, model__num_classes=5), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_full_disk_ends_a_run_with_one_line_and_keeps_the_last_good_checkpoint(data_dir, tmp_path):
    changes = dict(train__epochs=10.0, train__checkpoint_every=5, train__keep=100)
    whole = runs.config(data_dir, **changes)
    loop.train(whole, tmp_path)
    steps = sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    for path in (tmp_path / "metrics.json", *[tmp_path / "checkpoints" / str(step) for step in steps[1:]]):
        subprocess.run(["rm", "-r", str(path)], check=True)

    def small_files():  # nothing can be written past this size, as on a disk that has filled up
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    result = runs.run(
        runs.command(data_dir, tmp_path, *runs.flags(**changes)),
        preexec_fn=small_files,
    )
    assert f"the last good checkpoint is step {steps[0]}" in runs.error_line(result)
    loop.train(whole, tmp_path)
    assert runs.metrics(tmp_path)["step"] == 20


def test_too_little_memory_is_one_line_that_says_what_to_set(data_dir, tmp_path, monkeypatch):
    """Of a step and of an evaluation, by what JAX itself raises where 32 TiB are asked for."""

    def enormous(*arguments):
        return jax.jit(lambda: jnp.zeros(2**45, jnp.uint8))()

    loop.train(runs.config(data_dir, train__epochs=1.0), tmp_path / "trained")
    with monkeypatch.context() as patch:
        patch.setattr(Run, "train_step", lambda self: enormous)
        with pytest.raises(
            UserError, match=r"^config\.train\.batch_size: .* 16 clips \(devices: 8\); .*accumulate above"
        ):
            loop.train(runs.config(data_dir), tmp_path / "step")
    monkeypatch.setattr(Pass, "step", property(lambda self: enormous, lambda self, step: None), raising=False)
    with pytest.raises(UserError, match=r"^config\.evaluation\.batch_size: .* 16 videos \(devices: 8\)"):
        loop.evaluate(runs.config(data_dir, train__epochs=1.0), tmp_path / "trained")
