"""A frozen forward pass as StableHLO, for programs that have JAX and not this package."""

from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from safetensors.numpy import save_file

from vivit_jax.checkpoints.parameters import filled, paths
from vivit_jax.data.augment import normalize, to_float
from vivit_jax.errors import UserError
from vivit_jax.files import replacing, write_bytes, write_json
from vivit_jax.models.video_transformer import VideoTransformer

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
FRAMES = ("stride", "target_fps", "sampling", "short_clips", "resize")
USE = (
    "program = jax.export.deserialize(open('forward.stablehlo', 'rb').read())",
    "weights = safetensors.numpy.load_file('weights.safetensors')",
    "logits = program.call(weights, video)",
)


def export_forward(
    model: VideoTransformer, directory: str | Path, platforms: Sequence[str] = ("cpu", "cuda", "tpu")
) -> None:
    """Writes a model's forward pass, which runs without this package.

    `forward.stablehlo` is the program as `jax.export` serializes it: (weights, uint8 RGB video [B, T, h, w, 3]) -> what
    the model returns, for every B and the frames and pixels of its config; normalization is part of it. Weights lie
    beside it, in `weights.safetensors`: the program stays small, serves every model of its architecture, and is not
    bound to the 2 GiB that one file of both could have. `forward.json` says what goes in and out, and how to call it.

    Args:
      platforms: what it can be compiled for, some of PLATFORMS.
    Raises:
      UserError: a platform is none of these, or the directory cannot be written.
    """
    if not platforms or not set(platforms) <= set(PLATFORMS):
        raise UserError(f"platforms: {', '.join(platforms) or 'none'}; choose among {', '.join(PLATFORMS)}")
    directory, config, weights = Path(directory), model.config, paths(model)

    def forward(weights: dict[str, jax.Array], video: jax.Array):
        return filled(model, weights)(normalize(to_float(video), model.preprocessing))

    (batch,) = export.symbolic_shape("B")
    video = jax.ShapeDtypeStruct((batch, config.num_frames, *config.image_size, 3), jnp.uint8)
    shapes = {path: jax.ShapeDtypeStruct(x.shape, x.dtype) for path, x in weights.items()}
    program = export.export(jax.jit(forward), platforms=tuple(platforms))(shapes, video).serialize()
    about = {
        "video": {"dtype": "uint8", "shape": ["B", *video.shape[1:]], "channels": "RGB"},
        "frames": {
            name: getattr(model.preprocessing, name) for name in FRAMES
        },  # which of a video's, as `Preprocessing`
        "logits": config.heads,
        "labels": model.labels,
        "platforms": platforms,
        "jax": jax.__version__,
        "needs": "pip install jax flatbuffers safetensors",
        "use": USE,
    }
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with replacing(directory / "weights.safetensors") as temporary:
            save_file({path: np.asarray(x) for path, x in weights.items()}, temporary)
        write_bytes(directory / "forward.stablehlo", bytes(program))
        write_json(directory / "forward.json", about)
    except OSError as error:
        raise UserError(f"{directory}: cannot be written: {error.strerror or error}") from error
