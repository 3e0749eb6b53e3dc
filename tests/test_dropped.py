"""500 damaged files: at ingest each is skipped with its reason, in training each is dropped and counted by reason."""

import csv
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow_datasets as tfds

import damage
import runs
import videos
from vivit_jax.data.builder import VideoBuilder
from vivit_jax.data.datasets import VideoDataset
from vivit_jax.data.decode import FAULTS, DecodeError
from vivit_jax.data.pipeline import train_batches
from vivit_jax.data.reading import Reader
from vivit_jax.data.sources import Listing
from vivit_jax.errors import UserError
from vivit_jax.ingest import ingest
from vivit_jax.training import loop
from vivit_jax.training.dropped import Dropped, again
from vivit_jax.training.run import open_run
from vivit_jax.training.step import train_step_fn

GOOD = 40


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return list(damage.damaged(tmp_path_factory.mktemp("bench"), 500))


def test_ingest_survives_and_accounts_for_every_file(files, tmp_path):
    source = videos.folder(tmp_path / "videos", {"a": GOOD // 2, "b": GOOD // 2})
    for number, (kind, suffix, content) in enumerate(files):
        (source / "ab"[number % 2] / f"{kind}_{number}{suffix}").write_bytes(content)
    ingest(source, "mine", tmp_path / "data", max_skipped=1.0)
    dataset = VideoDataset(tmp_path / "data", "mine")
    sources = [dataset.source(split) for split in dataset.splits]
    kept = {source[index]["path"]: source[index]["num_frames"] for source in sources for index in range(len(source))}
    with (tmp_path / "data" / "mine" / "skipped.csv").open(newline="") as lines:
        skipped = {row["path"]: row["reason"] for row in csv.DictReader(lines)}
    assert len(kept) + len(skipped) == 500 + GOOD and not kept.keys() & skipped.keys()
    assert all(reason and len(reason) < 100 for reason in skipped.values())
    assert sum("_" not in path for path in kept) == GOOD  # of what is whole, nothing is lost
    assert all(2 <= frames <= 24 for frames in kept.values())  # no frame is made up
    fates = Counter((path.split("/")[1].split("_")[0], path in kept) for path in [*kept, *skipped])
    for kind in ("audio", "one frame", "empty", "noise"):
        assert fates[kind, True] == 0 and fates[kind, False] == 50, kind
    assert {skipped[path] for path in skipped if "audio" in path} == {"no video stream"}
    assert {skipped[path] for path in skipped if "one frame" in path} == {"a single frame"}
    assert fates["truncated", False] > 20 and fates["8K", True] == 50


class Raw(VideoBuilder, skip_registration=True):
    """Records that no ingest has seen: `examples` as they are."""

    name = "raw"

    def __init__(self, examples, **kwargs):
        self.examples = examples
        super().__init__(**kwargs)

    def read(self, source):
        return Listing([], {"label": ("a", "b")})

    def _split_generators(self, dl_manager):
        self.info.features["label"].names = ["a", "b"]
        return {"train": iter(self.examples), "validation": iter(self.examples[124:204])}


@pytest.fixture(scope="module")
def raw(files, tmp_path_factory):
    """The 500 as records, after 140 that are whole; 16 whole and 64 damaged ones are the validation split as well."""
    folder = tmp_path_factory.mktemp("raw")
    whole = [videos.write(folder / f"{n}.mp4", num_frames=24, seed=n).read_bytes() for n in range(4)]
    contents = [("whole", whole[n % 4]) for n in range(140)] + [(kind, content) for kind, _, content in files]
    facts = dict(frame_sizes=[], num_frames=24, fps=25.0, height=48, width=64)
    examples = [
        (f"{n:04d}", facts | {"video": content, "label": "ab"[n % 2], "path": f"{kind}/{n}"})
        for n, (kind, content) in enumerate(contents)
    ]
    tfds.disable_progress_bar()
    Raw(examples, data_dir=folder / "data").download_and_prepare()
    return folder / "data"


def config(raw, **changes):
    changes = dict(data__eval_resize=32, train__epochs=2.0, train__batch_size=64) | changes
    return runs.config(raw, data__name="raw", **changes)


def test_training_drops_them_and_counts_them_by_reason(raw, tmp_path):
    loop.train(config(raw, data__max_bad_fraction=0.9, train__epochs=1.1), tmp_path)
    lines = runs.log(tmp_path)
    assert [line["step"] for line in lines] == list(range(1, 12))
    assert all(np.isfinite(line["train/loss"]) for line in lines)
    source, names = VideoDataset(raw, "raw").source("train"), list(FAULTS)
    dropped = Counter()
    for batch in train_batches(source, config(raw), 0, 10):  # the first epoch
        np.testing.assert_array_equal(batch["weight"] == 0, batch["fault"] > 0)
        assert not batch["video"][batch["fault"] > 0].any()
        dropped += Counter(names[fault - 1] for fault in batch["fault"] if fault)
    counts = [{k.removeprefix("train/dropped/"): n for k, n in line.items() if "dropped" in k} for line in lines]
    assert counts[9] == dropped and 250 < dropped.total() <= 500
    assert sum(counts[10].values()) <= 64  # another epoch begins
    with (tmp_path / "dropped_train.csv").open(newline="") as rows:
        listed = {row["path"]: row["reason"] for row in csv.DictReader(rows)}
    assert not [path for path in listed if path.startswith("whole")]
    assert sum(path.startswith(("audio", "empty", "noise")) for path in listed) == 150
    assert set(listed.values()) <= set(FAULTS.values())


def test_too_many_of_them_end_the_run_with_the_list(raw, tmp_path):
    flags = ["--config.data.name=raw", "--config.data.eval_resize=32", "--config.train.batch_size=64"]
    result = runs.run(runs.command(raw, tmp_path / "run", *flags))
    line = runs.error_line(result)
    assert "config.data.max_bad_fraction: " in line and " of the 640 videos of 'train' cannot be read (" in line
    assert "undecodable" in line and "more than 0.01 of it" in line and "dropped_train.csv" in line
    assert "path,reason" in (tmp_path / "run" / "dropped_train.csv").read_text()


def test_evaluation_says_how_many_it_scored(raw, tmp_path):
    loop.train(config(raw, train__epochs=0.2, data__max_bad_fraction=0.9), tmp_path)
    metrics = runs.metrics(tmp_path)["validation"]
    assert metrics["num_videos"] + metrics["dropped"] == 80 and 30 < metrics["dropped"] <= 64
    listed = (tmp_path / "dropped_validation.csv").read_text().splitlines()
    assert len(listed) == 1 + metrics["dropped"] and listed[0] == "path,reason"
    with pytest.raises(UserError, match=r"max_bad_fraction: .* of the 80 videos of 'validation' cannot be read"):
        loop.evaluate(config(raw, train__epochs=0.2), tmp_path)


def test_a_step_learns_from_the_others_alone(data_dir, tmp_path):
    """Eight clips with eight that could not be had give the step of the eight alone; in parts of unequal weight."""
    still = dict(augment__flip=0.0, augment__jitter=0.0, augment__grayscale=0.0, train__accumulate=2)
    run = open_run(runs.config(data_dir, **still), tmp_path)
    step = jax.jit(train_step_fn(run.config, run.graph, run.preprocessing, run.optimizer, run.schedule))
    batch = next(iter(train_batches(run.dataset.source("train"), run.config, 0, 1)))
    batch = {key: jnp.asarray(np.array(value)) for key, value in batch.items() if key != "index"}
    gone = np.isin(np.arange(16), [0, 3, 5, 6, 9, 10, 14, 15])
    with_gone = batch | {
        "video": jnp.where(gone[:, None, None, None, None], 0, batch["video"]),
        "weight": jnp.where(gone, 0.0, 1.0),
        "fault": jnp.where(gone, 1, 0),
    }
    alone = {key: value[~gone] for key, value in batch.items()}
    state = run.new_state() | {"step": jnp.asarray(5)}
    (ours, our_metrics), (theirs, metrics) = step(state, with_gone), step(state, alone)
    for name in ("loss", "top_1", "grad_norm"):
        assert float(our_metrics[name]) == pytest.approx(float(metrics[name]), abs=1e-5)
    assert our_metrics["dropped"]["unreadable"] == 8
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(np.array(a), np.array(b), atol=1e-6), ours["params"], theirs["params"]
    )
    nothing = step(state, with_gone | {"weight": jnp.zeros(16), "fault": jnp.ones(16, jnp.int32)})
    assert nothing[1]["loss"] == 0 and nothing[1]["grad_norm"] == 0


def test_an_unreadable_record_is_a_fault_of_its_own(data_dir):
    class Torn:
        split, heads, reading = "train", ("label",), VideoDataset(data_dir, "tiny").source("train")

        def __len__(self):
            return len(self.reading)

        def __getitem__(self, index):
            if index % 4 == 0:
                raise OSError("Input/output error")
            return self.reading[index]

    (batch,) = train_batches(Torn(), runs.config(data_dir, train__batch_size=32), 0, 1)
    assert (batch["fault"][batch["index"] % 4 == 0] == 1).all() and (batch["fault"] == 1).sum() == 8


def test_a_video_counts_once_however_often_epochs_and_batches_meet_it():
    """Beside a count of what random epochs of 10 videos really show."""
    rng, size = np.random.default_rng(0), 10
    for _ in range(300):
        order = np.concatenate([rng.permutation(size) for _ in range(6)])
        first, last = sorted(rng.choice(60, 2, replace=False))
        bad = rng.choice(size, rng.integers(1, 5), replace=False)
        visits = [video for video in order[first:last] if video in bad]
        assert len(visits) - again(first, last, size) <= len(set(visits)) <= len(visits)
    assert again(0, 10, 10) == again(30, 40, 10) == again(3, 9, 10) == 0
    assert again(0, 64, 10) == 54 and again(8, 20, 10) == 2 and again(6_399, 12_799, 6_400) == 1


def test_one_bad_video_of_a_hundred_is_one_however_the_batches_fall(tmp_path):
    class Source:
        split = "train"

        def __len__(self):
            return 100

    dropped = Dropped(Source(), 0.01, tmp_path, "train")
    for step in range(1, 9):
        seen = (37 in order for order in np.tile(np.arange(100), 6)[(step - 1) * 64 : step * 64].reshape(64, 1))
        dropped.add({"unreadable": sum(seen)}, 0, step * 64)
    with pytest.raises(UserError, match="cannot be read"):
        dropped.add({"unreadable": 500}, 0, 9 * 64)


def test_a_run_goes_on_with_the_one_bad_video_that_is_allowed(data_dir, tmp_path, monkeypatch):
    """Of 32, in batches of 24: an epoch of steps meets it once or twice."""
    record = Reader._record

    def torn(self, index):
        if self.source.split == "train" and index == 5:
            raise DecodeError("unreadable")
        return record(self, index)

    monkeypatch.setattr(Reader, "_record", torn)
    few = dict(data__max_bad_fraction=0.04, train__batch_size=24, train__epochs=6.0)
    loop.train(runs.config(data_dir, **few), tmp_path / "run")
    met = [line.get("train/dropped/unreadable", 0) for line in runs.log(tmp_path / "run")]
    assert len(met) == 8 and max(met) == 2
    with pytest.raises(UserError, match=r"max_bad_fraction: 1 of the 32 videos of 'train' cannot be read"):
        loop.train(runs.config(data_dir, **few | dict(data__max_bad_fraction=0.03)), tmp_path / "less")
