"""Image ViTs in the flat .npz of the ViT and AugReg releases: a video transformer of one frame."""

import re
import zipfile
from pathlib import Path

import numpy as np

from vivit_jax.checkpoints import scenic
from vivit_jax.checkpoints.conversion import Checkpoint
from vivit_jax.errors import UserError
from vivit_jax.variants import preprocessing

_NAMES = (  # their layers are counted through; Scenic's by kind
    (r"LayerNorm_2/", "LayerNorm_1/"),
    (r"MultiHeadDotProductAttention_1/", "MultiHeadDotProductAttention_0/"),
    (r"MlpBlock_3/", "MlpBlock_0/"),
    (r"^head/", "output_projection/"),
)


def open_checkpoint(path: Path) -> Checkpoint:
    """Raises UserError where the file is cut short, or none of an image ViT."""
    try:
        arrays = np.load(path, allow_pickle=False)
        names = list(arrays.keys())
    except (OSError, ValueError, zipfile.BadZipFile, AttributeError) as error:
        raise UserError(f"{path}: is not a whole .npz file ({error})") from error
    tensors = {_rename(name): lambda name=name: arrays[name] for name in names}
    config, image_kernel = scenic.infer(str(path), tensors, {"num_frames": 1, "num_classes": None})
    rules = scenic.rules(config, image_kernel)
    return Checkpoint(str(path), config, preprocessing("vivit", config), None, rules, tensors)


def _rename(name: str) -> str:
    for theirs, ours in _NAMES:
        name = re.sub(theirs, ours, name)
    return name
