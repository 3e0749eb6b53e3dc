"""What is said of a video file is what an evaluation would score, whatever the container."""

import dataclasses
import json
from pathlib import Path

import jax
import matplotlib.image
import numpy as np
import pytest
from absl import flags
from flax import nnx

import runs
import videos
import vivit_jax
from models import fed, make
from vivit_jax import use
from vivit_jax.architecture import Preprocessing
from vivit_jax.checkpoints.training import Checkpoints
from vivit_jax.data import sampling
from vivit_jax.data.decode import decode
from vivit_jax.data.transcode import transcode
from vivit_jax.data.video_files import Facts
from vivit_jax.data.video_reader import VideoReader, Views, clips_of, spans
from vivit_jax.errors import UserError
from vivit_jax.evaluation.predict import ranked
from vivit_jax.training.loop import evaluate
from vivit_jax.training.run import claim, open_run

HEADS = {"verb": 3, "noun": 7}


def test_it_is_what_the_preprocessing_says(tmp_path):
    """Against the steps one by one: numbered frames, box, order of channels, mean, std, softmax, mean over views."""
    stored = transcode(videos.write(tmp_path / "clip.avi", num_frames=30, height=60, width=80), 256)
    (tmp_path / "clip.mp4").write_bytes(stored.video)
    details = dict(mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25), channel_order="BGR", resize=40, stride=3.0)
    model, probabilities = fed(make("vivit_ti16x2_fe"), **details), []
    model.labels = tuple("abcde")
    classify = nnx.jit(lambda model, clip: jax.nn.softmax(model(clip))[0])
    for frames in sampling.even_clips(30, 4, 3.0, "strided", "loop", 2):
        for box in sampling.view_boxes(60, 80, 40, (32, 32), 3):
            pixels = decode(stored.video, frames, size=(32, 32), box=box)[..., ::-1] / 255
            clip = (pixels - [0.4, 0.5, 0.6]) / [0.2, 0.3, 0.25]
            probabilities.append(np.asarray(classify(model, clip[None].astype(np.float32))))
    assert np.ptp(probabilities, axis=0).max() > 1e-3  # the views are told apart
    for average in ("probabilities", "logits"):
        found = dict(vivit_jax.predict(model, tmp_path / "clip.mp4", top_k=0, clips=2, crops=3, average=average))
        wanted = np.mean(probabilities, axis=0)
        if average == "logits":
            wanted = np.exp(np.mean(np.log(probabilities), axis=0))
            wanted /= wanted.sum()
        np.testing.assert_allclose([found[label] for label in "abcde"], wanted, atol=1e-5)


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv"])
def test_frames_by_the_number_that_really_decodes(tmp_path, suffix):
    path = videos.write(tmp_path / f"clip{suffix}", num_frames=40, height=64, width=64)
    feeding = Preprocessing(num_frames=4, stride=2.0, image_size=(64, 64))
    with VideoReader() as reader:
        facts = reader.facts(str(path))
        assert facts.num_frames == 40
        clips = [np.array(frames) for frames in ([0, 39, 7, 7], [3, 2, 1, 0], [38, 39, 39, 20])]
        (a, b, c) = reader.clips(str(path), facts, feeding, clips)
        again = next(reader.clips(str(path), facts, feeding, clips[2:]))
    stored = transcode(path, 256, "jpeg")
    for ours, frames in zip((a, b, c), clips):
        assert ours.shape == (1, 4, 64, 64, 3) and ours.dtype == np.uint8
        wanted = decode(stored.video, frames, frame_sizes=stored.frame_sizes)
        assert np.abs(ours[0].astype(int) - wanted).mean() < 6
        assert np.abs(ours[0].astype(int) - np.roll(wanted, 3, axis=2)).mean() > 20  # the frame after it
    np.testing.assert_array_equal(again, c)


def test_a_rotated_video_is_upright_and_a_large_one_reduced(tmp_path):
    path = videos.write(tmp_path / "clip.mp4", num_frames=6, height=300, width=560)
    with VideoReader() as reader:
        facts = reader.facts(str(path))
        feeding = Preprocessing(num_frames=2, stride=2.0, image_size=(224, 224), resize=256)
        (clip,) = reader.clips(str(path), facts, feeding, [np.array([0, 5])])
    stored = transcode(path, 256, "jpeg")
    assert (stored.height, stored.width) == (256, 478)
    box = sampling.view_boxes(256, 478, 256, (224, 224), 1)[0]
    wanted = decode(stored.video, np.array([0, 5]), size=(224, 224), box=box, frame_sizes=stored.frame_sizes)
    assert np.abs(clip[0].astype(int) - wanted).mean() < 6


def test_windows():
    feeding, facts = Preprocessing(4, 2.0, (32, 32)), Facts(100, 10.0, 64, 64)
    assert spans(facts, feeding, Views()) == [(0, 100)]
    assert spans(facts, feeding, Views(window_seconds=4.0)) == [(0, 40), (20, 40), (40, 40), (60, 40)]
    assert spans(facts, feeding, Views(window_seconds=4.0, stride_seconds=3.5)) == [(0, 40), (35, 40), (60, 40)]
    auto = spans(facts, feeding, Views(window_seconds=0.0))  # frames 0, 2, 4, 6
    assert auto[0] == (0, 7) and auto[1] == (3, 7) and auto[-1] == (93, 7)
    assert spans(facts, feeding, Views(window_seconds=99.0)) == [(0, 100)]
    with pytest.raises(UserError, match=r"windows of 0.5 s are shorter than a clip .* 0.70 s at 10 frames"):
        spans(facts, feeding, Views(window_seconds=0.5))
    ((frames,),) = [clips_of((35, 40), facts, feeding, 1)]
    np.testing.assert_array_equal(frames, [51, 53, 55, 57])  # the middle of the window


def test_several_heads_and_models_without_labels(tmp_path):
    path = videos.write(tmp_path / "clip.mp4")
    plain = vivit_jax.predict(fed(make("timesformer_b")), path, top_k=2)
    assert [type(label) for label, _ in plain] == [int, int] and plain[0][1] >= plain[1][1]
    model = fed(make("vivit_ti16x2_fe", classes=HEADS))
    model.labels = {"verb": tuple("abc"), "noun": tuple("defghij")}
    found = vivit_jax.predict(model, path, top_k=4)
    assert {head: len(best) for head, best in found.items()} == {"verb": 3, "noun": 4}
    assert sum(p for _, p in found["verb"]) == pytest.approx(1, abs=1e-5) and found["noun"][0][0] in "defghij"


def test_preprocessing_comes_with_the_checkpoint(tmp_path):
    """And follows what is asked for; the crop stays the same part of the picture."""
    model = fed(make("timesformer_b"), resize=36, stride=3.0, sampling="span", short_clips="hold")
    vivit_jax.save_pretrained(model, tmp_path)
    assert vivit_jax.load_model(tmp_path).preprocessing == model.preprocessing
    larger = vivit_jax.load_model(tmp_path, num_frames=8, image_size=64).preprocessing
    assert larger == dataclasses.replace(model.preprocessing, num_frames=8, image_size=(64, 64), resize=72)
    values = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({k: v for k, v in values.items() if k != "vivit_jax"}))
    theirs = vivit_jax.load_model(tmp_path).preprocessing  # as transformers wrote it
    assert (theirs.resize, theirs.sampling, theirs.num_frames) == (36, "span", 4)


def test_ranking_keeps_to_the_labels_that_fit():
    scores = {"head": np.array([0.2, 0.5, 0.3])}
    assert ranked(scores, ("a", "b", "c"), 2) == {"head": [("b", 0.5), ("c", 0.3)]}
    assert ranked(scores, ("of", "another", "head", "there"), 1) == {"head": [(1, 0.5)]}


def test_an_unreadable_file_is_an_error(tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"no video at all")
    with pytest.raises(UserError, match=r"clip.mp4: does not decode"):
        vivit_jax.predict(fed(make("timesformer_b")), tmp_path / "clip.mp4")
    with pytest.raises(UserError, match=r"gone.mp4: there is no such file"):
        vivit_jax.predict(fed(make("timesformer_b")), tmp_path / "gone.mp4")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model's directory, and a folder with three good videos, a torn one and a file that is none."""
    root = tmp_path_factory.mktemp("predict")
    model = fed(make("vivit_ti16x2_fe"))
    model.labels = tuple("abcde")
    vivit_jax.save_pretrained(model, root / "model")
    for index, suffix in enumerate((".mp4", ".avi", ".mkv")):
        videos.write(root / "videos" / f"{index}{suffix}", num_frames=30 + index, seed=index)
    videos.truncate(videos.write(root / "videos" / "torn.mp4", num_frames=60))
    (root / "videos" / "notes.txt").write_text("no video")
    return root, model


def test_a_folder_to_json_lines(saved, tmp_path):
    """In the words of `predict`; what cannot be read is a record, the others go on, and the exit status tells."""
    root, model = saved
    given = ["--mode=predict", f"--input={root / 'videos'}", f"--checkpoint={root / 'model'}", "--top_k=2"]
    result = runs.use(*given, f"--output={tmp_path / 'out.jsonl'}", "--verbose", cache=root / "cache")
    assert runs.error_line(result) == "error: 1 of 4 videos could not be read"
    records = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [Path(record["video"]).name for record in records] == ["0.mp4", "1.avi", "2.mkv", "torn.mp4"]
    assert set(records[3]) == {"video", "error"} and "\n" not in records[3]["error"]
    for index, record in enumerate(records[:3]):
        assert record["num_frames"] == 30 + index and record["fps"] == 25 and record["views"] == 1
        best = [(item["label"], pytest.approx(item["probability"], abs=1e-5)) for item in record["predictions"]]
        assert vivit_jax.predict(model, record["video"], top_k=2) == best
    stages = [line for line in result.stderr.splitlines() if "in all" in line]
    assert len(stages) == 1 and all(
        f"{name} " in stages[0] for name in ("imports", "load", "decode", "compile", "forward")
    )
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


def test_windows_to_lines_and_a_timeline(saved, tmp_path):
    root, _ = saved
    given = [f"--input={root / 'videos' / '[0t]*.mp4'}", f"--checkpoint={root / 'model'}", "--window_seconds=0.8"]
    result = runs.use("--mode=predict", *given, f"--output={tmp_path / 'out.jsonl'}", cache=root / "cache")
    assert "1 of 2" in runs.error_line(result)
    record = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])
    assert [(window["start"], window["end"]) for window in record["windows"]] == [(0, 0.8), (0.4, 1.2)]
    means = {label: 0.0 for label in "abcde"}
    for window in record["windows"]:
        for item in window["predictions"]:
            means[item["label"]] += item["probability"] / 2
    for item in record["predictions"]:
        assert item["probability"] == pytest.approx(means[item["label"]], abs=1e-5)
    assert record["timeline"] == str(tmp_path / "0_timeline.png")
    assert matplotlib.image.imread(record["timeline"])[..., :3].std() > 0.05


def test_a_run_predicts_what_it_evaluates(data_dir, tmp_path):
    """The views of its evaluation, of its dataset's own videos: the loss is the same."""
    config, workdir = runs.config(data_dir, evaluation__clips=2, data__eval_resize=40), tmp_path / "run"
    trained = open_run(config, workdir)
    claim(workdir, config)
    state = trained.new_state()
    noise = lambda x: x + 0.2 * jax.random.normal(jax.random.key(x.size), x.shape)  # noqa: E731
    checkpoints = Checkpoints(workdir, 1)
    checkpoints.save(1, state | {"params": jax.tree.map(noise, state["params"])}, trained.data())
    checkpoints.close()
    evaluate(config, workdir)
    source, names = trained.dataset.source("validation"), trained.dataset.class_names
    for index in range(len(source)):
        folder = tmp_path / "videos" / names[source[index]["label"]]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{index}.mp4").write_bytes(source[index]["video"])
    given = [f"--input={tmp_path / 'videos'}", f"--workdir={workdir}", "--top_k=0", f"--output={tmp_path / 'x.jsonl'}"]
    result = runs.use("--mode=predict", *given, cache=tmp_path / "cache")
    assert result.returncode == 0, result.stderr
    losses = []
    for record in map(json.loads, (tmp_path / "x.jsonl").read_text().splitlines()):
        scores = {item["label"]: item["probability"] for item in record["predictions"]}
        losses.append(-np.log(scores[Path(record["video"]).parent.name]))
        assert record["views"] == 2
    assert len(losses) == 24 and np.ptp(losses) > 0.1
    assert np.mean(losses) == pytest.approx(runs.metrics(workdir)["validation"]["loss"], abs=1e-4)


def test_a_config_beside_a_workdir_says_the_views(data_dir, tmp_path):
    claim(tmp_path, runs.config(data_dir, evaluation__clips=2))
    flags.FLAGS.mark_as_parsed()
    assert use.model_of(None, str(tmp_path))[1].clips == 2
    assert use.model_of(runs.config(data_dir, evaluation__clips=3), str(tmp_path))[1].clips == 3
    with pytest.raises(UserError, match=r"config.data.stride: 2.0 -> 1.0"):
        use.model_of(runs.config(data_dir, data__stride=1.0), str(tmp_path))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--input=x.mp4"], "give one of the two"),
        (["--checkpoint=x"], "--input is missing"),
        (["--input=gone*.mp4", "--checkpoint=x"], "is no file, no folder, and no pattern"),
        (["--workdir=nowhere", "--input=x"], "holds no run"),
        (["--checkpoint=nowhere", "--input=README.md"], "nowhere: is no file"),
        (["--checkpoint=x", "--input=README.md", "--window_seconds=long"], "neither a length above 0 nor auto"),
        (["--checkpoint=x", "--input=README.md", "--output=nowhere/x.jsonl"], "--output: nowhere/x.jsonl"),
    ],
)
def test_mistakes_are_one_line(given, message, tmp_path):
    assert message in runs.error_line(runs.use("--mode=predict", *given, cache=tmp_path))
