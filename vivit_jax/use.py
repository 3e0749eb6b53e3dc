"""--mode=predict, look and plot: what is done with a trained model, and the flags for it."""

import glob
import json
from pathlib import Path

from absl import flags

from vivit_jax.config import Config, from_dict
from vivit_jax.errors import UserError
from vivit_jax.schema import differences
from vivit_jax.sections_evaluation import Evaluation

INPUT = flags.DEFINE_string("input", None, "predict, look: a video file, a folder of them, or a glob in quotes.")
OUTPUT = flags.DEFINE_string("output", None, "predict: FILE.jsonl to write in place of lines; look: a folder.")
CHECKPOINT = flags.DEFINE_string("checkpoint", None, "predict, look, evaluate: what load_model reads, not a run.")
TOP_K = flags.DEFINE_integer("top_k", 5, "predict: how many classes are named; 0 for all.", lower_bound=0)
CLIPS = flags.DEFINE_integer("clips", None, "predict: clips to average; 1, or as the run evaluates.", lower_bound=1)
CROPS = flags.DEFINE_integer("crops", None, "predict: crops of each to average.", lower_bound=1)
WINDOW = flags.DEFINE_string("window_seconds", None, "predict: score windows of this length; auto: of a clip's.")
STRIDE = flags.DEFINE_float("stride_seconds", 0.0, "predict: from window to window; 0: half of one.", lower_bound=0)
TIME_LIMIT = flags.DEFINE_float("time_limit", 900.0, "predict, look: seconds to count a video's frames.", lower_bound=1)
VERBOSE = flags.DEFINE_bool("verbose", False, "predict: say what took how long.")
LAYER = flags.DEFINE_integer("layer", -1, "look: whose heads are drawn; -1 is the last.")


def run(verb: str, config: Config | None, workdir: str | None) -> None:
    """Raises UserError for what cannot be done, or was not with every video."""
    if verb == "plot":
        if workdir is None:
            raise UserError("--workdir is missing, as in --mode=plot --workdir=runs/demo")
        from vivit_jax.training.curves import plot

        print(plot(Path(workdir)))
        return
    source, evaluation = model_of(config, workdir)
    videos = find_videos(INPUT.value)
    # Imported only now, and JAX later still: the first video is read while everything else starts.
    if verb == "look":
        from vivit_jax.evaluation.visualize import look_at_files

        look_at_files(source, videos, Path(OUTPUT.value or "."), LAYER.value, TIME_LIMIT.value)
        return
    from vivit_jax.data.video_reader import Views
    from vivit_jax.evaluation.predict_files import predict_files

    clips, crops = CLIPS.value or evaluation.clips, CROPS.value or evaluation.crops
    views = Views(clips, crops, evaluation.average, *_windows(), evaluation.starts)
    output = None if OUTPUT.value is None else Path(OUTPUT.value)
    predict_files(source, videos, views, TOP_K.value, output, TIME_LIMIT.value, VERBOSE.value)


def find_videos(what: str | None) -> list[str]:
    """The files that --input names.

    Raises:
      UserError: there are none.
    """
    if not what:
        raise UserError("--input is missing, as in --input=clip.mp4, --input=folder or --input='*.mkv'")
    from vivit_jax.data.sources import videos_under

    path = Path(what).expanduser()
    if path.is_file():
        return [str(path)]
    found = videos_under(path) if path.is_dir() else sorted(map(Path, glob.glob(str(path), recursive=True)))
    if not (files := [str(path) for path in found if path.is_file()]):
        empty = "holds no video" if path.is_dir() else "is no file, no folder, and no pattern that a file matches"
        raise UserError(f"--input: {what} {empty}")
    return files


def model_of(config: Config | None, workdir: str | None) -> tuple[str, Evaluation]:
    """Where the model is, and the views that its run evaluates."""
    if (CHECKPOINT.value is None) == (workdir is None):
        raise UserError("give one of the two: --checkpoint=SOURCE, or --workdir=runs/demo of a run")
    if workdir is None:
        if config is not None:
            raise UserError("--config goes with --workdir; a --checkpoint itself says what it is of")
        return str(CHECKPOINT.value), Evaluation()
    path = Path(workdir) / "config.json"
    if not path.exists():
        raise UserError(f"--workdir: {workdir} holds no run; train one first")
    saved = from_dict(json.loads(path.read_text(encoding="utf-8")))
    if config is not None and (changed := differences(saved, config)):
        raise UserError(f"{workdir}: was started with another configuration ({'; '.join(changed)})")
    return workdir, (config or saved).evaluation


def _windows() -> tuple[float | None, float]:
    """Seconds of a window, 0 for those of a clip, None for no windows; and from one to the next."""
    if WINDOW.value is None and STRIDE.value:
        raise UserError("--stride_seconds: is for --window_seconds, a length or auto")
    if WINDOW.value in (None, "auto"):
        return None if WINDOW.value is None else 0.0, STRIDE.value
    try:
        seconds = float(WINDOW.value)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise UserError(f"--window_seconds: {WINDOW.value!r} is neither a length above 0 nor auto")
    return seconds, STRIDE.value
