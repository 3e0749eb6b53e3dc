"""--mode=predict: many video files, each a line; nothing waits that can run beside something else."""

import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from vivit_jax.data.video_reader import VideoReader, Views
from vivit_jax.errors import UserError, disk_space
from vivit_jax.figures import new_figure
from vivit_jax.files import distinct_stems, replacing
from vivit_jax.memory import compute_in_kept_memory

if TYPE_CHECKING:  # imports JAX
    from vivit_jax.evaluation.predict import Forward


class Stages:
    """Seconds by stage."""

    def __init__(self):
        self.began, self.seconds = time.perf_counter(), dict[str, float]()

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def timed(self, name: str, items: Iterator[Any]) -> Iterator[Any]:
        while True:
            with self(name):
                item = next(items, None)
            if item is None:
                return
            yield item

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in sorted(self.seconds.items()))
        return f"{parts}; in all {time.perf_counter() - self.began:.2f} s, load and decode beside the others"


def predict_files(
    source: str, videos: list[str], views: Views, top_k: int, output: Path | None, time_limit: float, verbose: bool
) -> None:
    """Writes a JSON record for each video to `output`, or lines for people to stdout; windows give timelines too.

    Raises:
      UserError: the model or the output is no good, or, at the end, some of the videos could not be read.
    """
    stages, failed = Stages(), 0
    if output is not None and (output.is_dir() or not output.absolute().parent.is_dir()):
        raise UserError(f"--output: {output} is a folder, or in a folder that does not exist")
    if views.window_seconds is not None:
        new_figure(1, 1, "--window_seconds")  # says at once that matplotlib is missing
    with VideoReader(time_limit) as reader:
        reader.start()
        with stages("imports"):
            from vivit_jax.checkpoints.pretrained import open_model
            from vivit_jax.compiled import choose_compiler_options, keep_compiled, user_cache
            from vivit_jax.evaluation import predict
            from vivit_jax.evaluation.timeline import draw_timeline
            from vivit_jax.evaluation.views import check_clips
        compute_in_kept_memory()
        choose_compiler_options()
        keep_compiled(user_cache())
        checkpoint, target = open_model(source)
        check_clips(target.preprocessing, views.clips)
        found = predict.ahead(stages.timed("decode", predict.pieces(reader, videos, target.preprocessing, views)))
        forward = _load(checkpoint, target, stages)
        names, folder = distinct_stems(videos), output.parent if output else Path(".")
        with _lines(output) as lines:
            for prediction in predict.predictions(found, forward, views):
                failed += bool(prediction.error)
                record = prediction.record(target.labels, top_k)
                if views.window_seconds is not None and not prediction.error:
                    picture = folder / f"{names[prediction.video]}_timeline.png"
                    draw_timeline(prediction, target.labels, top_k or 10, picture)
                    record["timeline"] = str(picture)
                for line in [json.dumps(record)] if output else describe(record):
                    print(line, file=lines, flush=True)
    if output:
        print(f"{len(videos) - failed} videos -> {output}")
    if verbose:
        print(stages, file=sys.stderr)
    if failed:
        raise UserError(f"{failed} of {len(videos)} videos could not be read")


def _load(checkpoint: Any, target: Any, stages: Stages) -> "Forward":
    """Reads the weights while the program that they go into is compiled."""
    import jax
    from flax import nnx

    from vivit_jax.checkpoints.pretrained import read_model
    from vivit_jax.evaluation.predict import classify, view_shape

    def read() -> Any:
        with stages("load"):
            return nnx.split(read_model(checkpoint, target))[1]

    with ThreadPoolExecutor(1) as pool:
        weights = pool.submit(read)
        with stages("compile"):
            graph, state = nnx.split(target)
            program = classify.lower(graph, state, view_shape(target.preprocessing)).compile()
        state = weights.result()

    def forward(view: Any) -> dict[str, jax.Array]:
        with stages("forward"):
            return jax.block_until_ready(program(state, view))

    return forward


@contextmanager
def _lines(output: Path | None) -> Iterator[TextIO]:
    if output is None:
        yield sys.stdout
        return
    with disk_space(lambda: f"--output: the disk is full at {output}; free some space and start again"):
        try:
            with replacing(output) as temporary, temporary.open("w", encoding="utf-8") as lines:
                yield lines
        except PermissionError as error:
            raise UserError(f"--output: {output} cannot be written: {error.strerror}") from error


def describe(record: dict[str, Any]) -> Iterator[str]:
    """Lines for people: the video's, and one for each window."""
    if "error" in record:
        yield f"{record['video']}: {record['error']}"
        return
    yield f"{record['video']}: {_named(record['predictions'])}"
    for window in record.get("windows", ()):
        yield f"  {window['start']:8.2f} - {window['end']:8.2f} s: {_named(window['predictions'])}"
    if "timeline" in record:
        yield f"  -> {record['timeline']}"


def _named(predictions: Any) -> str:
    if isinstance(predictions, dict):
        return "; ".join(f"{head}: {_named(of_head)}" for head, of_head in predictions.items())
    from vivit_jax.evaluation.predict import spoken

    return ", ".join(f"{spoken(x['label'])} {x['probability']:.3f}" for x in predictions)
