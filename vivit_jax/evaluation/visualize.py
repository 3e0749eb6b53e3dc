"""--mode=look: what a model attends to in a video, drawn over its frames."""

from collections.abc import Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import jax
import numpy as np
from flax import nnx

from vivit_jax.checkpoints.pretrained import load_model
from vivit_jax.compiled import choose_compiler_options, keep_compiled, user_cache
from vivit_jax.data.augment import normalize, to_float
from vivit_jax.data.video_reader import VideoReader, Views, clips_of, spans
from vivit_jax.errors import UserError, disk_space
from vivit_jax.evaluation.predict import ranked, spoken
from vivit_jax.evaluation.rollout import head_maps, keep, rollout
from vivit_jax.figures import new_figure, save
from vivit_jax.files import distinct_stems, replacing
from vivit_jax.memory import compute_in_kept_memory
from vivit_jax.models.tokenizers import uniform_frames
from vivit_jax.models.video_transformer import VideoTransformer

MAX_COLUMNS = 16  # of a strip; of more time steps so many are shown, evenly spread
OPACITY = 0.6  # of the colors


@partial(jax.jit, static_argnums=(0, 3))
def _look(graph: nnx.GraphDef, state: Any, video: jax.Array, layer: int) -> tuple[Any, jax.Array, dict[str, jax.Array]]:
    model = nnx.merge(graph, state)
    logits, taps = model(normalize(to_float(video), model.preprocessing), return_taps=keep)
    logits = logits if isinstance(logits, dict) else {"head": logits}
    return jax.tree.map(jax.nn.softmax, logits), rollout(model, taps), head_maps(model, taps, layer)


def look(
    model: VideoTransformer,
    video: str | Path,
    folder: str | Path,
    *,
    layer: int = -1,
    name: str | None = None,
    reader: VideoReader | None = None,
) -> list[Path]:
    """Draws the attention rollout and every head of a layer over the frames of the middle clip of a video.

    Args:
      folder: where `NAME_rollout.png` and `.mp4`, and for each of the layer's attentions `NAME_heads_AXES.png` and
        `.mp4` are written; it is made where it does not exist.
      layer: whose heads are drawn; of the factorized encoder, one of the spatial encoder.
      name: NAME; by default the video's.
    Returns:
      The files.
    Raises:
      UserError: (a ValueError) the file is no usable video, there is no such layer, or matplotlib is missing.
    """
    if reader is None:
        with VideoReader() as reader:
            return look(model, video, folder, layer=layer, name=name, reader=reader)
    new_figure(1, 1, "look")  # says at once that matplotlib is missing
    feeding, path, folder = model.preprocessing, str(video), Path(folder)
    facts = reader.facts(path)
    (frames,) = clips_of(spans(facts, feeding, Views())[0], facts, feeding, Views())
    clip = next(reader.clips(path, facts, feeding, [frames]))
    scores, rolled, heads = jax.device_get(_look(*nnx.split(model), clip, layer))
    best = ranked({head: of[0] for head, of in scores.items()}, model.labels, 1)
    said = ", ".join(f"{spoken(ranking[0][0])} {ranking[0][1]:.2f}" for ranking in best.values())
    rate = max(facts.fps / max(float(np.median(np.diff(frames))), 1.0), 1.0) if len(frames) > 1 else 1.0
    if model.config.sampled_frames:
        clip = clip[:, uniform_frames(clip.shape[1], model.config.sampled_frames)]
    maps = {"rollout": rolled[0][None]} | {f"heads_{axes}": of[0] for axes, of in heads.items()}
    start, title = f"{name or Path(path).stem}_", f"{Path(path).name}: {said}"
    paths = []
    with disk_space(lambda: f"the disk is full at {folder}; free some space and start again"):
        folder.mkdir(parents=True, exist_ok=True)
        for kind, of_kind in maps.items():
            shown = [overlaid(clip[0], of_head) for of_head in of_kind]
            shown = [clip[0], *shown] if kind == "rollout" else shown
            paths += [folder / f"{start}{kind}.png", folder / f"{start}{kind}.mp4"]
            strip(shown, model.config.tubelet_size, f"{title}\n{caption(kind, layer)}", paths[-2])
            write_mp4(tiled(shown), rate, paths[-1])
    return paths


def caption(kind: str, layer: int) -> str:
    if kind == "rollout":
        return "attention rollout"
    axes = kind.removeprefix("heads_")
    where = "temporal encoder, last layer" if axes == "temporal" else f"layer {layer}, attention over {axes}"
    return f"{where}: a row for each head"


def overlaid(frames: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """Attention [T, H, W] over the frames that its tokens cover, uint8 [t, h, w, 3]: its lowest is dark, its highest
    bright, whatever they are."""
    from matplotlib import colormaps

    times, height, width = (frame // token for frame, token in zip(frames.shape[:3], maps.shape, strict=True))
    span = max(float(np.ptp(maps)), 1e-12)
    part = np.kron((maps - maps.min()) / span, np.ones((times, height, width)))
    colors = colormaps["inferno"](part)[..., :3] * 255
    return (frames * (1 - OPACITY) + colors * OPACITY).astype(np.uint8)


def strip(rows: Sequence[np.ndarray], tubelet_size: int, title: str, path: Path) -> None:
    """Rows of frames [t, h, w, 3], the first of each time step, as PNG."""
    steps = np.arange(0, len(rows[0]), tubelet_size)
    if len(steps) > MAX_COLUMNS:
        steps = steps[np.linspace(0, len(steps) - 1, MAX_COLUMNS).round().astype(int)]
    _, height, width, _ = rows[0].shape
    figure = new_figure(1.2 * len(steps), 1.25 * len(rows) * height / width + 0.3, "look")
    for axes, row in zip(figure.subplots(len(rows), len(steps), squeeze=False), rows, strict=True):
        for axis, frame in zip(axes, row[steps], strict=True):
            axis.imshow(frame)
            axis.set_axis_off()
    figure.suptitle(title, fontsize="small", wrap=True)
    save(figure, path)


def tiled(videos: Sequence[np.ndarray]) -> np.ndarray:
    """Videos [t, h, w, 3] side by side, in rows as even as can be: [t, rows * h, columns * w, 3]."""
    columns = int(np.ceil(len(videos) ** 0.5))
    blank = np.zeros_like(videos[0])
    padded = [*videos, *[blank] * (-len(videos) % columns)]
    rows = [np.concatenate(padded[at : at + columns], axis=2) for at in range(0, len(padded), columns)]
    return np.concatenate(rows, axis=1)


def write_mp4(frames: np.ndarray, fps: float, path: Path) -> None:
    """uint8 RGB [t, h, w, 3] as H.264, whole or not at all; an odd side gets a black line more."""
    frames = np.pad(frames, ((0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)))
    with replacing(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options={"crf": "18"})
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode(None))


def look_at_files(source: str, videos: list[str], folder: Path, layer: int, time_limit: float) -> None:
    """Draws each of many videos, and prints the files.

    Raises:
      UserError: the model is no good, or, at the end, some of the videos could not be read.
    """
    new_figure(1, 1, "--mode=look")  # says at once that matplotlib is missing
    compute_in_kept_memory()
    choose_compiler_options()
    keep_compiled(user_cache())
    failed, names = 0, distinct_stems(videos)
    with VideoReader(time_limit) as reader:
        reader.start()
        model = load_model(source)
        for video in videos:
            try:
                paths = look(model, video, folder, layer=layer, name=names[video], reader=reader)
            except UserError as error:
                failed += 1
                print(error, flush=True)
                continue
            kinds = dict.fromkeys(path.stem.removeprefix(f"{names[video]}_") for path in paths)
            print(f"{video} -> {folder / names[video]}_{{{','.join(kinds)}}}.{{png,mp4}}", flush=True)
    if failed:
        raise UserError(f"{failed} of {len(videos)} videos could not be drawn")
