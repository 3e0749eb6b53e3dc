"""Batches: a function of the seed and the step, every video once in evaluation, shared out over processes."""

import multiprocessing
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

import runs
from vivit_jax.data import pipeline, sampling
from vivit_jax.data.datasets import VideoDataset
from vivit_jax.data.pipeline import evaluation_batches, train_batches
from vivit_jax.errors import UserError


@pytest.fixture
def source(data_dir):
    return VideoDataset(data_dir, "tiny").source("train")


class Watched:
    """A source that notes each record that is read, in whatever process."""

    def __init__(self, source, notes):
        self.source, self.notes = source, notes

    def __len__(self):
        return len(self.source)

    def __getitem__(self, index):
        with self.notes.open("a") as notes:
            notes.write(".")
        return self.source[index]


def stack(batches):
    return [{name: np.array(value) for name, value in batch.items()} for batch in batches]


def assert_same(a, b):
    assert len(a) == len(b)
    for x, y in zip(a, b):
        for name in x:
            np.testing.assert_array_equal(x[name], y[name])


def test_batches_depend_on_seed_and_step_alone(data_dir, source):
    config = runs.config(data_dir)
    whole = stack(train_batches(source, config, 0, 7))
    assert whole[0]["video"].shape == (16, 4, 32, 32, 3) and whole[0]["video"].dtype == np.uint8
    assert_same(whole, stack(train_batches(source, config, 0, 7)))
    assert_same(whole[3:], stack(train_batches(source, config, 3, 7)))
    other = stack(train_batches(source, runs.config(data_dir, seed=1), 0, 7))
    assert not np.array_equal(whole[0]["video"], other[0]["video"])


def test_worker_processes_give_the_same_batches_from_any_step(data_dir, source):
    config = runs.config(data_dir, data__num_workers=2)
    expected = stack(train_batches(source, runs.config(data_dir), 0, 5))
    assert_same(expected, stack(train_batches(source, config, 0, 5)))
    assert_same(expected[3:], stack(train_batches(source, config, 3, 5)))


@pytest.mark.parametrize("processes, most", [(0, 3), (1, 5)])
def test_few_batches_wait(data_dir, source, tmp_path, processes, most):
    notes = tmp_path / "notes"
    batches = train_batches(Watched(source, notes), runs.config(data_dir, data__num_workers=processes), 0, 1000)
    next(batches)
    read = 0
    while read < notes.stat().st_size:  # until nothing more is
        read = notes.stat().st_size
        time.sleep(0.5)
    assert 16 < read <= most * 16
    assert len(stack(next(batches) for _ in range(10))) == 10  # and it goes on


def test_an_epoch_sees_every_video_once_and_the_next_in_another_order(data_dir, source):
    class Paths:
        def __init__(self, seen):
            self.seen = seen

        def __len__(self):
            return len(source)

        def __getitem__(self, index):
            self.seen.append(int(index))
            return source[index]

    config, orders = runs.config(data_dir), []
    for start in (0, 2):  # 32 videos make 2 batches of 16
        seen = []
        list(train_batches(Paths(seen), config, start, start + 2))
        assert sorted(set(seen)) == list(range(32))
        orders.append(seen)
    labels = [np.concatenate([b["label"] for b in train_batches(source, config, s, s + 2)]) for s in (0, 2)]
    assert sorted(labels[0]) == sorted(labels[1]) and not np.array_equal(*labels)


def test_a_process_reads_its_rows_of_a_global_batch(data_dir, source):
    config = runs.config(data_dir)
    whole = stack(train_batches(source, config, 0, 2))
    for rows in (slice(0, 8), slice(8, 16), slice(4, 8)):
        for part, batch in zip(stack(train_batches(source, config, 0, 2, rows)), whole, strict=True):
            np.testing.assert_array_equal(part["video"], batch["video"][rows])


@pytest.mark.parametrize("processes", [1, 2])
def test_evaluation_pads_and_weighs_padding_with_nothing(data_dir, processes):
    source = VideoDataset(data_dir, "tiny").source("validation")
    config = runs.config(data_dir, evaluation__clips=2, evaluation__crops=3, data__eval_resize=40)
    labels, count, size = [], 0, 16 // processes
    for index in range(processes):
        for batch in evaluation_batches(source, config, slice(size * index, size * index + size)):
            assert batch["video"].shape == (16 // processes, 6, 4, 32, 32, 3)
            labels += batch["label"][batch["weight"] > 0].tolist()
            count += len(batch["weight"])
    assert count == 32 and sorted(labels) == sorted(source[i]["label"] for i in range(24))


def test_target_fps_and_stride_agree(data_dir, source):
    """The clips run at 25 frames per second."""
    by_stride = stack(train_batches(source, runs.config(data_dir, data__stride=2.5), 0, 1))
    by_rate = stack(train_batches(source, runs.config(data_dir, data__stride=0.0, data__target_fps=10.0), 0, 1))
    assert_same(by_stride, by_rate)


def test_what_is_not_there_is_named(data_dir):
    with pytest.raises(UserError, match=r"there is no dataset at .*nothing.*; make one: python -m vivit_jax\.ingest"):
        VideoDataset(data_dir, "nothing")
    with pytest.raises(UserError, match="there is no split 'test', only train, validation"):
        VideoDataset(data_dir, "tiny").source("test")


def test_another_number_of_processes_goes_on_in_the_same_epoch(data_dir, source):
    """32 videos, batches of 8: two steps of one process, then two steps of two."""
    config = runs.config(data_dir, train__batch_size=8)
    seen = [index for batch in train_batches(source, config, 0, 2) for index in batch["index"].tolist()]
    whole = stack(train_batches(source, config, 2, 4))
    for index in range(2):
        parts = stack(train_batches(source, config, 2, 4, slice(4 * index, 4 * index + 4)))
        for part, batch in zip(parts, whole, strict=True):
            np.testing.assert_array_equal(part["video"], batch["video"][4 * index : 4 * index + 4])
            seen += part["index"].tolist()
    assert sorted(seen) == list(range(32))


def test_a_decoding_process_that_is_killed_is_replaced(data_dir, source, capfd):
    expected = stack(train_batches(source, runs.config(data_dir), 0, 12))
    batches, got = train_batches(source, runs.config(data_dir, data__num_workers=2), 0, 12), []
    for number, batch in enumerate(batches):
        got.append({name: np.array(value) for name, value in batch.items()})
        if number in (1, 5):
            os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
    assert_same(expected, got)
    assert "A decoding process died; all are started again" in capfd.readouterr().err


def test_processes_that_keep_dying_are_one_clear_error(data_dir, source, monkeypatch):
    monkeypatch.setattr(pipeline, "RESTARTS", 0)
    batches = train_batches(source, runs.config(data_dir, data__num_workers=1), 0, 1000)
    next(batches)
    os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
    with pytest.raises(UserError, match=r"config\.data\.num_workers: decoding processes died 1 times without a batch"):
        for _ in batches:
            continue


def test_decoding_processes_end_with_the_run(data_dir, tmp_path):
    command = runs.command(data_dir, tmp_path, "--config.data.num_workers=2", "--config.train.epochs=1000.0")
    process = subprocess.Popen(
        command, cwd=runs.REPOSITORY, env=runs.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "log.jsonl").exists() or not runs.log(tmp_path):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.2)
    children = [
        child
        for task in Path(f"/proc/{process.pid}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]
    assert len(children) >= 2
    process.kill()
    process.wait()
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{child}").exists() for child in children):
        assert time.monotonic() < deadline, "they live on"
        time.sleep(0.2)


def test_sides_are_scaled_apart_where_the_recipe_says_so(source, data_dir, monkeypatch):
    real, boxes = sampling.jittered_box, []

    def noted(*args):
        boxes.append(real(*args))
        return boxes[-1]

    monkeypatch.setattr(sampling, "jittered_box", noted)
    for crop, alike in (("jitter", True), ("stretch", False)):
        boxes.clear()
        next(iter(train_batches(source, runs.config(data_dir, data__crop=crop, data__crop_short_side=(36, 60)), 0, 1)))
        assert len(boxes) == 16 and all((abs(h - w) < 1e-6) == alike for _, _, h, w in boxes)
