"""What a trained model says that video files show."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, TypeVar

import jax
import numpy as np
from flax import nnx

from vivit_jax.architecture import Labels, Preprocessing
from vivit_jax.data.augment import normalize, to_float
from vivit_jax.data.video_files import Facts
from vivit_jax.data.video_reader import VideoReader, Views, clips_of, spans
from vivit_jax.errors import UserError
from vivit_jax.evaluation.views import average_views, check_clips
from vivit_jax.models.video_transformer import VideoTransformer

T = TypeVar("T")
Scores = dict[str, np.ndarray]  # probabilities [K] by head; a single head is called `head`
Ranking = list[tuple[str | int, float]]  # labels, or numbers where the model has none, and probabilities, highest first
Forward = Callable[[np.ndarray], dict[str, jax.Array]]  # uint8 RGB [1, T, h, w, 3] -> logits [1, K] by head


@dataclass(frozen=True)
class Piece:
    """The views of a window of a video, or why there are none."""

    number: int  # of the video
    path: str
    facts: Facts | None = None
    span: tuple[int, int] = (0, 0)  # first frame and number of frames
    video: np.ndarray | None = None  # uint8 RGB [views, T, h, w, 3]
    error: str = ""


@dataclass(frozen=True)
class Prediction:
    """The scores of one video, or why there are none."""

    video: str
    error: str = ""
    facts: Facts | None = None
    views: int = 0  # averaged, of the video or of each window
    scores: Scores = field(default_factory=dict)  # of the video: with windows, their mean
    windows: list[tuple[float, float, Scores]] = field(default_factory=list)  # start and end in seconds, scores

    def record(self, labels: Labels | None, top_k: int) -> dict[str, Any]:
        """A line of JSON Lines; a `top_k` of 0 keeps every class."""
        if self.facts is None:
            return {"video": self.video, "error": self.error}

        def listed(scores: Scores) -> Any:
            best = ranked(scores, labels, top_k)
            as_dicts = {
                head: [{"label": label, "probability": round(p, 6)} for label, p in ranking]
                for head, ranking in best.items()
            }
            return as_dicts["head"] if as_dicts.keys() == {"head"} else as_dicts

        found = {"video": self.video, "num_frames": self.facts.num_frames, "fps": self.facts.fps, "views": self.views}
        found["predictions"] = listed(self.scores)
        if self.windows:
            found["windows"] = [
                {"start": round(start, 3), "end": round(end, 3), "predictions": listed(scores)}
                for start, end, scores in self.windows
            ]
        return found


def class_names(labels: Labels | None, head: str, count: int) -> Sequence[str | int]:
    """The names of a head's classes; their numbers where the model has none."""
    names = labels.get(head, ()) if isinstance(labels, dict) else labels or ()
    return names if len(names) == count else range(count)


def spoken(label: str | int) -> str:
    return label if isinstance(label, str) else f"class {label}"


def ranked(scores: Scores, labels: Labels | None, top_k: int) -> dict[str, Ranking]:
    """The `top_k` classes of each head, or all for 0, the most probable first."""
    best = {}
    for head, values in scores.items():
        names, order = class_names(labels, head, len(values)), np.argsort(-values, kind="stable")[: top_k or None]
        best[head] = [(names[index], float(values[index])) for index in order]
    return best


@partial(jax.jit, static_argnums=0)
def classify(graph: nnx.GraphDef, state: Any, video: jax.Array) -> dict[str, jax.Array]:
    """uint8 RGB [B, T, h, w, 3] -> logits [B, K] by head, under the preprocessing that the model carries."""
    model = nnx.merge(graph, state)
    logits = model(normalize(to_float(video), model.preprocessing))
    return logits if isinstance(logits, dict) else {"head": logits}


def view_shape(feeding: Preprocessing) -> jax.ShapeDtypeStruct:
    """Of the only thing that is ever classified: one view."""
    return jax.ShapeDtypeStruct((1, feeding.num_frames, *feeding.image_size, 3), np.uint8)


def pieces(reader: VideoReader, paths: Iterable[str], feeding: Preprocessing, views: Views) -> Iterator[Piece]:
    """The windows of every video in order; one that cannot be read ends with its error, and the next one follows."""
    for number, path in enumerate(paths):
        try:
            facts = reader.facts(path)
            parts = spans(facts, feeding, views)
            clips = [clip for part in parts for clip in clips_of(part, facts, feeding, views)]
            read = reader.clips(path, facts, feeding, clips, views.crops)
            for part in parts:
                video = np.concatenate([next(read) for _ in range(views.clips)])
                yield Piece(number, path, facts, part, video)
        except UserError as error:
            yield Piece(number, path, error=str(error).removeprefix(f"{path}: "))


def ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items; each is made while the one before is worked on, the first one from now on."""
    pool = ThreadPoolExecutor(1)
    coming = pool.submit(next, items, None)

    def rest() -> Iterator[T]:
        following = coming
        try:
            while (item := following.result()) is not None:
                following = pool.submit(next, items, None)
                yield item
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    return rest()


def predictions(found: Iterator[Piece], forward: Forward, views: Views) -> Iterator[Prediction]:
    """One for each video, as soon as its last window is scored."""
    for _, of_video in groupby(found, lambda piece: piece.number):
        windows, piece = [], None
        for piece in of_video:
            if piece.facts is not None:
                start, size = piece.span
                seconds = start / piece.facts.fps, (start + size) / piece.facts.fps
                windows.append((*seconds, _scores(piece, forward, views.average)))
        assert piece is not None
        if piece.facts is None or piece.video is None:
            yield Prediction(piece.path, piece.error)
            continue
        scores = jax.tree.map(lambda *of: np.mean(of, axis=0), *(scores for _, _, scores in windows))
        shown = [] if views.window_seconds is None else windows
        yield Prediction(piece.path, "", piece.facts, len(piece.video), scores, shown)


def _scores(piece: Piece, forward: Forward, average: str) -> Scores:
    """Views go through the model one by one: one program, and little memory, for any number of them."""
    assert piece.video is not None
    logits = jax.tree.map(lambda *of: np.stack(of, axis=1), *(forward(view[None]) for view in piece.video))
    return {head: np.asarray(_probabilities(x, average))[0] for head, x in logits.items()}


@partial(jax.jit, static_argnums=1)
def _probabilities(logits: jax.Array, average: str) -> jax.Array:
    return jax.nn.softmax(average_views(logits, average))


def predict(
    model: VideoTransformer,
    video: str | Path,
    top_k: int = 5,
    *,
    clips: int = 1,
    crops: int = 1,
    average: Literal["probabilities", "logits"] = "probabilities",
) -> Ranking | dict[str, Ranking]:
    """Classifies a video file of any container, fed as `model.preprocessing` says.

    Args:
      top_k: classes that are returned; 0 for all.
      clips, crops: views that are averaged: clips spread over the video, times crops spread over its long side.
    Returns:
      [(label, probability), ...], the most probable first, with numbers for labels where the model has none; by head
      where there are several.
    Raises:
      UserError: (a ValueError) the file is no usable video, or has no such clips; the message says why.
    """
    (graph, state), views = nnx.split(model), Views(clips, crops, average)
    check_clips(model.preprocessing, views.clips)
    with VideoReader() as reader:
        found = pieces(reader, [str(video)], model.preprocessing, views)
        (prediction,) = predictions(found, lambda view: classify(graph, state, view), views)
    if prediction.error:
        raise UserError(f"{video}: {prediction.error}")
    best = ranked(prediction.scores, model.labels, top_k)
    return best["head"] if best.keys() == {"head"} else best
