"""What is said of a video file is what an evaluation would score, whatever the container."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from flax import nnx

import videos
import vivit_jax
from models import fed, make
from videos import decode
from vivit_jax.architecture import Preprocessing
from vivit_jax.data import sampling
from vivit_jax.data.transcode import transcode
from vivit_jax.data.video_files import Facts
from vivit_jax.data.video_reader import VideoReader, Views, clips_of, spans
from vivit_jax.errors import UserError
from vivit_jax.evaluation.predict import ranked

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
    with pytest.raises(UserError, match="must be finite"):
        Views(window_seconds=1.0, stride_seconds=float("inf"))
    ((frames,),) = [clips_of((35, 40), facts, feeding, Views())]
    np.testing.assert_array_equal(frames, [51, 53, 55, 57])  # the middle of the window
    ((frames,),) = [clips_of((35, 40), facts, feeding, Views(starts="timesformer_release"))]
    np.testing.assert_array_equal(frames, [35, 37, 39, 41])  # its start


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


@pytest.mark.parametrize(
    "error, said",
    [
        (TimeoutError("takes longer than 5 s"), "takes longer than 5 s"),
        (ChildProcessError("ends the process that decodes it"), "ends the process that decodes it"),
        (OSError(5, "Input/output error"), "Input/output error"),
        (MemoryError(), "takes too much memory"),
    ],
)
def test_what_a_video_does_to_its_reader_is_one_line(tmp_path, monkeypatch, error, said):
    path = tmp_path / "clip.mp4"
    path.touch()
    with VideoReader() as reader:
        monkeypatch.setattr(reader, "_isolated", Answers(error))
        with pytest.raises(UserError, match=rf"^{path}: {said}$"):
            reader.facts(str(path))


class Answers:
    """A process that has nothing but this error to say."""

    def __init__(self, error):
        self.error = error

    def __call__(self, question):
        return None, self.error

    def close(self):
        self.error = None
