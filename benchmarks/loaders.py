"""The loaders that `input_pipeline.py` compares: each makes a function that reads the clips of one round."""

import importlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

FRAMES, STRIDE, SIZE, BATCH, CLIPS = 32, 2.0, 224, 8, 48
Clip = tuple[list[int], list[float]]  # frame numbers; top, left, height and width of the crop


def config(data_dir: str, num_workers: int):
    from vivit_jax.config import base, from_dict

    values = base()
    values.model.name = "vivit_b16x2_fe"
    values.data.update(name="clips", data_dir=data_dir, stride=STRIDE, num_workers=num_workers)
    values.train.batch_size = BATCH
    return from_dict(values)


def pipeline(data_dir: str, num_workers: int) -> Callable[[], None]:
    """What training reads, step by step."""
    from vivit_jax.data.datasets import VideoDataset
    from vivit_jax.data.pipeline import train_batches

    source = VideoDataset(data_dir, "clips").source("train")
    batches = train_batches(source, config(data_dir, num_workers), 0, 1_000_000)

    def run() -> None:
        for _ in range(CLIPS // BATCH):
            batch = next(batches)
            assert batch["video"].shape == (BATCH, FRAMES, SIZE, SIZE, 3) and batch["weight"].all()

    return run


def _next_round(clips: list[Clip]) -> list[Clip]:
    """The next of a list that is used up by the rounds, and starts over."""
    clips[:] = clips[CLIPS:] + clips[:CLIPS]
    return clips[-CLIPS:]


def bare(video: Path, clips: list[Clip], processes: int = 1) -> Callable[[], None]:
    """Each process has its share of the clips."""
    data = video.read_bytes()

    def run() -> None:
        now = _next_round(clips)
        share, children = 0, []
        for other in range(1, processes):
            children.append(os.fork())
            if not children[-1]:
                share = other
                break
        for frames, _ in now[share::processes]:
            _decode(data, frames)
        if share:
            os._exit(0)
        for child in children:
            os.waitpid(child, 0)

    return run


def _decode(video: bytes, frames: list[int]) -> None:
    import av

    wanted, kept = set(frames), []
    with av.open(io.BytesIO(video)) as container:
        source: Any = container
        stream = source.streams.video[0]
        stream.thread_type, stream.codec_context.thread_count = "NONE", 1
        ticks = stream.duration / stream.frames
        source.seek(int(frames[0] * ticks), stream=stream)
        for frame in source.decode(stream):
            number = round(frame.pts / ticks)
            if number in wanted:
                kept.append(frame.to_ndarray(format="rgb24"))
            if number >= frames[-1]:
                break
    assert len(kept) == FRAMES


def _batched(clips: list[Clip], read: Callable[[list[int], list[float]], np.ndarray]) -> Callable[[], None]:
    def run() -> None:
        now = _next_round(clips)
        for start in range(0, CLIPS, BATCH):
            batch = np.stack([read(*clip) for clip in now[start : start + BATCH]])
            assert batch.shape[1] == FRAMES

    return run


def decord(video: Path, clips: list[Clip]) -> Callable[[], None]:
    """Decoded whole, cropped and resized by OpenCV."""
    cv2: Any = importlib.import_module("cv2")
    library: Any = importlib.import_module("decord")
    data = video.read_bytes()

    cv2.setNumThreads(1)

    def read(frames: list[int], box: list[float]) -> np.ndarray:
        pictures = library.VideoReader(io.BytesIO(data), ctx=library.cpu(0), num_threads=1).get_batch(frames).asnumpy()
        top, left, height, width = (round(x) for x in box)
        cropped = pictures[:, top : top + height, left : left + width]
        return np.stack([cv2.resize(picture, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR) for picture in cropped])

    return _batched(clips, read)


def opencv(video: Path, clips: list[Clip]) -> Callable[[], None]:
    """Frame by frame from the first that is wanted."""
    cv2: Any = importlib.import_module("cv2")

    cv2.setNumThreads(1)

    def read(frames: list[int], box: list[float]) -> np.ndarray:
        capture = cv2.VideoCapture(str(video), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        capture.set(cv2.CAP_PROP_POS_FRAMES, frames[0])
        top, left, height, width = (round(x) for x in box)
        kept = []
        for number in range(frames[0], frames[-1] + 1):
            capture.grab()
            if number in frames:
                picture = capture.retrieve()[1][top : top + height, left : left + width, ::-1]
                kept.append(cv2.resize(picture, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR))
        return np.stack(kept)

    return _batched(clips, read)


def torchcodec(video: Path, clips: list[Clip]) -> Callable[[], None]:
    torch: Any = importlib.import_module("torch")
    decoders: Any = importlib.import_module("torchcodec.decoders")
    data = video.read_bytes()

    torch.set_num_threads(1)

    def read(frames: list[int], box: list[float]) -> np.ndarray:
        decoder = decoders.VideoDecoder(data, num_ffmpeg_threads=1, seek_mode="approximate")
        pictures = decoder.get_frames_at(frames).data
        top, left, height, width = (round(x) for x in box)
        cropped = pictures[..., top : top + height, left : left + width]
        return torch.nn.functional.interpolate(cropped, (SIZE, SIZE), mode="bilinear").numpy()

    return _batched(clips, read)


PEERS = {"torchcodec": torchcodec, "decord": decord, "opencv": opencv}
PACKAGES = {"torchcodec": "torchcodec", "decord": "decord", "opencv": "opencv-python-headless"}
