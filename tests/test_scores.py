"""What evaluation keeps of every video: the same metrics from a file, other averages, reports by class."""

import csv
import sys
from dataclasses import replace

import matplotlib.image
import numpy as np
import pytest

import runs
from vivit_jax.data import sampling
from vivit_jax.errors import UserError
from vivit_jax.evaluation.multiview import gathered
from vivit_jax.evaluation.reports import write_reports
from vivit_jax.evaluation.scores import Scores, load_scores
from vivit_jax.training import loop

HEADS = {"noun": ("tap", "onion", "pan"), "verb": ("take", "cut")}


def random_scores(seed=0, size=300):
    """More videos than are scored at once."""
    rng = np.random.default_rng(seed)
    labels = {head: rng.integers(0, len(names), size).astype(np.int32) for head, names in HEADS.items()}
    logits = {head: rng.normal(size=(size, 4, len(names))).astype(np.float32) for head, names in HEADS.items()}
    return Scores(np.array([f"é/{i}" for i in range(size)]), labels, logits, 4, "probabilities", 2)


def rows(path):
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_a_run_that_is_evaluated_can_be_scored_again(data_dir, tmp_path):
    config = runs.config(data_dir, evaluation__clips=2, evaluation__crops=2)
    runs.untrained(config, tmp_path)
    loop.evaluate(config, tmp_path)
    metrics = runs.metrics(tmp_path)["validation"]
    scores = load_scores(tmp_path / "scores_validation.npz")
    assert scores.metrics() == metrics and scores.logits.shape == (24, 4, 8)
    classes, confusion = rows(tmp_path / "classes_validation.csv"), rows(tmp_path / "confusion_validation.csv")
    recalls = [float(row[2]) for row in classes[1:]]
    assert np.mean(recalls) == pytest.approx(metrics["mean_class_accuracy"], abs=1e-4)
    matrix = np.array([[int(x) for x in row[1:]] for row in confusion[1:]])
    assert matrix.sum() == 24 and np.trace(matrix) / 24 == pytest.approx(metrics["top_1"])
    assert confusion[0][1:] == [row[0] for row in classes[1:]] == [row[0] for row in confusion[1:]]
    again = replace(config, evaluation=replace(config.evaluation, average="logits", scores="averaged"))
    loop.evaluate(replace(again, data=replace(config.data, num_workers=1)), tmp_path)
    assert scores.rescored("logits").metrics() == pytest.approx(runs.metrics(tmp_path)["validation"], abs=1e-6)
    with pytest.raises(UserError, match="views were averaged by logits"):
        load_scores(tmp_path / "scores_validation.npz").rescored("probabilities")


def test_several_heads_survive_a_file_and_are_scored_alone(tmp_path):
    scores = random_scores()
    scores.save(tmp_path / "scores.npz", HEADS)
    again = load_scores(tmp_path / "scores.npz")
    assert again.metrics() == scores.metrics() and list(again.paths) == list(scores.paths)
    probabilities = {head: np.exp(x) / np.exp(x).sum(-1, keepdims=True) for head, x in scores.logits.items()}
    said = {head: x.mean(1).argmax(-1) for head, x in probabilities.items()}
    right = {head: said[head] == scores.labels[head] for head in said}
    metrics = again.metrics()
    assert metrics["top_1"] == pytest.approx(np.mean(right["noun"] & right["verb"])) and metrics["dropped"] == 2
    alone = again.rescored(heads=("verb",)).metrics()
    assert alone["top_1"] == alone["verb/top_1"] == metrics["verb/top_1"] == pytest.approx(np.mean(right["verb"]))
    with pytest.raises(UserError, match="heads: there is no 'adverb', only noun, verb"):
        again.rescored(heads=("adverb",))
    result = runs.run(
        [sys.executable, "-m", "vivit_jax.evaluation.rescore", "--heads=verb", str(tmp_path / "scores.npz")]
    )
    assert f"top-1 {alone['top_1']:.4f}" in result.stdout and "on 300 videos x 4 views" in result.stdout
    (tmp_path / "scores.npz").write_bytes((tmp_path / "scores.npz").read_bytes()[:1000])
    (tmp_path / "notes.txt").write_text("top-1 0.5")
    for name in ("scores.npz", "notes.txt"):
        with pytest.raises(UserError, match=f"{name}: is no whole file of scores, such as an evaluation writes$"):
            load_scores(tmp_path / name)
    with pytest.raises(UserError, match=r"none.npz: cannot be read .*No such file"):
        load_scores(tmp_path / "none.npz")


def test_reports_by_class_against_a_loop(tmp_path, monkeypatch):
    scores = random_scores(1, 60)
    scores.labels["noun"][scores.labels["noun"] == 2] = 0  # nothing is a pan
    names = [path.name for path in write_reports(tmp_path, "test", scores, HEADS)]
    assert names == [f"{kind}_test_{head}.{end}" for head in HEADS
                     for kind, end in (("classes", "csv"), ("confusion", "csv"), ("confusion", "png"))]  # fmt: skip
    said = scores.averaged()["noun"].argmax(1)
    table = rows(tmp_path / "classes_test_noun.csv")
    for index, row in enumerate(table[1:]):
        mine, label = scores.labels["noun"] == index, HEADS["noun"][index]
        assert row[:2] == [label, str(mine.sum())] and row[4] == str((said == index).sum())
        if not mine.any():
            assert row[2:4] == ["", ""]
            continue
        assert float(row[2]) == pytest.approx(np.mean(said[mine] == index), abs=1e-4) and float(row[3]) == 1.0
        assert float(row[5]) == pytest.approx(np.mean(scores.labels["noun"][said == index] == index), abs=1e-4)
        wrong = [np.sum(said[mine] == other) if other != index else -1 for other in range(3)]
        assert row[6:] == [HEADS["noun"][int(np.argmax(wrong))], str(max(wrong))]
    assert matplotlib.image.imread(tmp_path / "confusion_test_noun.png").shape[0] > 200
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)  # without the extra `plots`
    assert {path.suffix for path in write_reports(tmp_path, "test", scores, HEADS)} == {".csv"}


def test_paths_are_put_in_order():
    parts = np.array([["a", "äöü"], ["", "long/name"]])
    assert gathered(parts, 0, 2).tolist() == ["a", "äöü", "", "long/name"]


PROTOCOLS = {  # the paper's or release's test clips of a video of 300 frames, worked out by hand
    "ViViT, 4 clips": (("strided", 32, 2.0, "even", 4), [(0, 62), (79, 141), (158, 220), (237, 299)]),
    "ViViT as released": (("strided", 32, 2.0, "vivit_release", 4), [(0, 62), (78, 140), (157, 219), (236, 298)]),
    "TimeSformer, the middle": (("span", 8, 32.0, "even", 1), [(22, 277)]),
    "TimeSformer as released": (("span", 8, 32.0, "timesformer_release", 1), [(0, 255)]),
    "TimeSformer as released, 3 clips": (
        ("span", 8, 32.0, "timesformer_release", 3),
        [(0, 255), (14, 269), (29, 284)],
    ),
    "TimeSformer-L": (("span", 96, 4.0, "timesformer_release", 1), [(0, 83)]),  # 384 frames: it starts over
    "Something-Something": (("segments", 8, 1.0, "even", 1), [(18, 280)]),
    "long video": (("whole", 96, 1.0, "even", 1), [(0, 299)]),
}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_clips_of_the_papers_and_releases(name):
    (rule, num_frames, stride, starts, clips), ends = PROTOCOLS[name]
    found = sampling.even_clips(300, num_frames, stride, rule, "loop", clips, starts)
    assert [(clip[0], clip[-1]) for clip in found] == ends
    assert all(len(clip) == num_frames for clip in found)


def test_what_has_no_start_is_refused(data_dir):
    with pytest.raises(
        UserError, match=r"config\.evaluation\.starts: 'vivit_release' with config.data.sampling 'whole'"
    ):
        runs.config(data_dir, data__sampling="whole", evaluation__starts="vivit_release")


def test_scores_that_are_no_numbers_are_no_hits():
    values = np.random.default_rng(0).normal(size=(4, 1, 7)).astype(np.float32)
    values[1:] = np.nan
    labels = values[:, 0].argmax(-1).astype(np.int32)
    found = Scores(np.array(list("abcd")), labels, values, 1, "probabilities").metrics()
    assert found["top_1"] == found["top_5"] == 0.25
