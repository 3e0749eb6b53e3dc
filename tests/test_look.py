"""Pictures of attention and of a run's course."""

import json

import av
import matplotlib.image
import numpy as np
import pytest

import runs
import videos
from models import fed, make
from vivit_jax import save_pretrained
from vivit_jax.errors import UserError
from vivit_jax.evaluation import visualize
from vivit_jax.files import distinct_stems
from vivit_jax.training import curves


def frames_of(path):
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.stack(frames)


def test_the_command_draws_rollout_and_heads(tmp_path):
    video = videos.write(tmp_path / "clip.avi", num_frames=20, height=64, width=64)
    save_pretrained(fed(make("vivit_ti16x2_fe")), tmp_path / "model")
    (tmp_path / "bad.avi").write_bytes(b"nothing")
    given = [f"--input={tmp_path / '*.avi'}", f"--checkpoint={tmp_path / 'model'}", f"--output={tmp_path / 'look'}"]
    result = runs.use("--mode=look", *given, cache=tmp_path / "cache")
    assert runs.error_line(result) == "error: 1 of 2 videos could not be drawn"
    assert f"{tmp_path / 'bad.avi'}: does not decode" in result.stdout
    drawn = tmp_path / "look" / "clip_{rollout,heads_space,heads_temporal}.{png,mp4}"
    assert f"{video} -> {drawn}\n" in result.stdout
    names = [f"clip_{name}" for name in ("heads_space", "heads_temporal", "rollout")]
    wanted = sorted(f"{name}.{kind}" for name in names for kind in ("png", "mp4"))
    assert sorted(path.name for path in (tmp_path / "look").iterdir()) == wanted
    assert frames_of(tmp_path / "look" / "clip_rollout.mp4").shape == (4, 32, 64, 3)  # beside its frames
    assert frames_of(tmp_path / "look" / "clip_heads_space.mp4").shape == (4, 64, 64, 3)  # four heads
    for path in (tmp_path / "look").glob("*.png"):
        assert matplotlib.image.imread(path)[..., :3].std() > 0.05


@pytest.mark.parametrize("case", ["timesformer_b_axial", "vivit_ti16x2_fdpa"])
def test_frames_lie_under_their_own_attention(tmp_path, monkeypatch, case):
    """What is drawn brightest is where the map is highest, in time as well."""
    seen = {}
    monkeypatch.setattr(visualize, "write_mp4", lambda frames, fps, path: seen.update({path.name: (frames, fps)}))
    video = videos.write(tmp_path / "clip.mp4", num_frames=20, height=64, width=64)
    model = fed(make(case), stride=2.5)
    paths = visualize.look(model, video, tmp_path / "look", layer=0)
    assert all(path.exists() for path in paths if path.suffix == ".png")
    assert {name.split("_")[1] for name in seen} == {"rollout.mp4", "heads"}
    assert seen["clip_rollout.mp4"][1] == pytest.approx(25 / 2.5, rel=0.3)
    t, h, w = model.config.grid
    maps = np.random.default_rng(0).uniform(size=(t, h, w))
    maps[t - 1, 1, 2] = 2
    gray = np.full((4, 32, 32, 3), 128, np.uint8)
    bright = visualize.overlaid(gray, maps).astype(int).sum(-1)
    top = np.unravel_index(np.flatnonzero(bright == bright.max()), bright.shape)
    assert {*top[0]} == {*range(4 - 4 // t, 4)} and {*top[1]} == {*range(8, 16)} and {*top[2]} == {*range(16, 24)}
    assert len(top[0]) == 4 // t * 64


def test_captions():
    assert visualize.caption("rollout", -1) == "attention rollout"
    assert visualize.caption("heads_space", 3) == "layer 3, attention over space: a row for each head"
    assert visualize.caption("heads_temporal", 3) == "temporal encoder, last layer: a row for each head"


def test_names_do_not_collide():
    names = distinct_stems(["a/clip.v1.mp4", "b/clip.v1.avi", "c/clip.v1.mkv", "d/x.mp4"])
    assert list(names.values()) == ["clip.v1", "clip.v1_2", "clip.v1_3", "x"]


def test_tiles():
    clips = [np.full((2, 3, 4, 3), value, np.uint8) for value in (1, 2, 3)]
    tiled = visualize.tiled(clips)
    assert tiled.shape == (2, 6, 8, 3)
    assert [tiled[0, y, x, 0] for y, x in ((0, 0), (0, 4), (3, 0), (3, 4))] == [1, 2, 3, 0]


def test_an_odd_picture_can_be_written(tmp_path):
    visualize.write_mp4(np.full((3, 35, 21, 3), 200, np.uint8), 12.5, tmp_path / "x.mp4")
    frames = frames_of(tmp_path / "x.mp4")
    assert frames.shape == (3, 36, 22, 3) and abs(frames[:, :35, :21].mean() - 200) < 5


def log(workdir, *entries):
    workdir.mkdir(parents=True)
    (workdir / "log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries) + '{"step": 9, "tr')
    return workdir


def test_curves(tmp_path):
    entries = [{"step": step, "train/loss": 1 / step, "train/top_1": 0.1 * step, "train/lr": 1.0} for step in (1, 2, 4)]
    workdir = log(tmp_path / "run", *entries, {"step": 2, "validation/top_1": 0.3, "validation/verb/top_1": 0.5})
    final = {"top_1": 0.6, "loss": 0.7, "majority_class": 0.4}
    (workdir / "metrics.json").write_text(json.dumps({"step": 4, "validation": final}))
    found = curves.read_curves(workdir)
    assert found["validation/top_1"] == [(2, 0.3), (4, 0.6)] and found["train/loss"] == [(1, 1), (2, 0.5), (4, 0.25)]
    (workdir / "metrics.json").write_text(json.dumps({"checkpoint": "model", "validation": final}))  # of another
    assert curves.read_curves(workdir)["validation/top_1"] == [(2, 0.3)]
    (workdir / "metrics.json").write_text(json.dumps({"step": 4, "validation": final}))
    drawn = {}
    figure = curves.draw(found, "run")
    for axes in figure.axes:
        drawn[axes.get_ylabel()] = sorted(line.get_label() for line in axes.lines)
    assert drawn["loss"] == ["train/loss", "validation/loss"]
    chance = "validation: the largest class"
    assert drawn["accuracy"] == ["train/top_1", "validation/top_1", "validation/verb/top_1", chance]
    assert {*figure.axes[1].lines[-1].get_ydata()} == {0.4}
    same = {name: [(1, 0.5), (2, 0.7)] for name in ("train/loss", "validation/top_1", "validation/mean_class_accuracy")}
    styles = {line.get_label(): line.get_linestyle() for line in curves.draw(same, "run").axes[1].lines}
    assert styles == {"validation/top_1": "-", "validation/mean_class_accuracy": "--"}  # both are seen
    result = runs.use("--mode=plot", f"--workdir={workdir}", cache=tmp_path)
    assert result.returncode == 0 and result.stdout == f"{workdir / 'plot.png'}\n", result.stderr
    assert matplotlib.image.imread(workdir / "plot.png").shape[2] == 4


def test_no_curves(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"holds no log.jsonl"):
        curves.plot(tmp_path)
    with pytest.raises(UserError, match="has no loss in it yet"):
        curves.plot(log(tmp_path / "run"))
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(UserError, match=r"--mode=plot draws with matplotlib: pip install vivit_jax\[plots\]"):
        curves.plot(log(tmp_path / "other", {"step": 1, "train/loss": 1.0}))
