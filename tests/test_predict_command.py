"""Videos on the command line: lines, JSON Lines, timelines, and mistakes."""

import json
from pathlib import Path

import jax
import matplotlib.image
import numpy as np
import pytest
from absl import flags

import runs
import videos
import vivit_jax
from models import fed, make
from vivit_jax import use
from vivit_jax.checkpoints.training import Checkpoints
from vivit_jax.data.video_reader import Views
from vivit_jax.errors import UserError
from vivit_jax.evaluation.predict_files import predict_files
from vivit_jax.training.loop import evaluate
from vivit_jax.training.run import claim, open_run


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
    views = dict(evaluation__clips=2, evaluation__starts="timesformer_release")
    config, workdir = runs.config(data_dir, data__eval_resize=40, **views), tmp_path / "run"
    trained = open_run(config, workdir)
    claim(workdir, config)
    state = trained.new_state()
    params = jax.tree.map(lambda x: x + 0.2 * jax.random.normal(jax.random.key(x.size), x.shape), state["params"])
    checkpoints = Checkpoints(workdir, 1)
    checkpoints.save(1, state | {"params": params}, trained.data())
    checkpoints.close()
    evaluate(config, workdir)
    source, names = trained.dataset.source("validation"), trained.dataset.class_names
    for index in range(len(source)):
        folder = tmp_path / "videos" / names[source[index]["label"]]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{index}.mp4").write_bytes(source[index]["video"])
    given = [f"--input={tmp_path / 'videos'}", f"--workdir={workdir}", "--top_k=0", f"--output={tmp_path / 'x.jsonl'}"]
    result = runs.use("--mode=predict", *given, cache=tmp_path / "cache")
    assert result.returncode == 0 and result.stdout == f"24 videos -> {tmp_path / 'x.jsonl'}\n", result.stderr
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


def test_several_clips_of_what_one_has_seen_are_an_error(monkeypatch):
    """Before the video, which is not there, is looked for."""
    model, message = fed(make("timesformer_b"), sampling="whole"), "clips: 2 of a model whose sampling is 'whole'"
    with pytest.raises(UserError, match=message):
        vivit_jax.predict(model, "gone.mp4", clips=2)
    monkeypatch.setattr("vivit_jax.checkpoints.pretrained.open_model", lambda source: (None, model))
    monkeypatch.setattr("vivit_jax.evaluation.predict_files.compute_in_kept_memory", lambda: None)
    for name in ("keep_compiled", "choose_compiler_options"):  # of the whole process
        monkeypatch.setattr(f"vivit_jax.compiled.{name}", lambda *_: None)
    with pytest.raises(UserError, match=message):
        predict_files("model", ["gone.mp4"], Views(clips=2), 5, None, 60.0, False)


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
