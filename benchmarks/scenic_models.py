"""Scenic's modules of ViViT-B/16x2, with the sizes of its release's configurations.

They need a checkout of github.com/google-research/scenic on PYTHONPATH, of which projects/vivit/model.py is imported
(for that, most of Scenic and TensorFlow are too).
"""

import importlib
import importlib.util
from typing import Any

import jax.numpy as jnp
from ml_collections import ConfigDict

SCENIC = "scenic.projects.vivit.model"
ONE = dict(mlp_dim=3072, num_layers=12, num_heads=12)
TWO = dict(spatial_mlp_dim=3072, spatial_num_layers=12, spatial_num_heads=12)
TWO |= dict(temporal_mlp_dim=3072, temporal_num_layers=4, temporal_num_heads=12)
# Our name: the class, its attention, from what it classifies, and its sizes.
MODELS: dict[str, tuple[str, dict[str, str], str, dict[str, int]]] = {
    "vivit_b16x2": ("ViViT", {"type": "spacetime"}, "token", ONE),
    "vivit_b16x2_fe": ("SpaceTimeViViT", {"type": "factorized_encoder"}, "token", TWO),
    "vivit_b16x2_fsa": (
        "ViViT", {"type": "factorized_self_attention_block", "attention_order": "space_time"}, "gap", ONE,
    ),
    "vivit_b16x2_fdpa": ("ViViT", {"type": "factorized_dot_product_attention"}, "gap", ONE),
}  # fmt: skip


def available() -> bool:
    """Whether there is a checkout."""
    return importlib.util.find_spec("scenic") is not None


def scenic_model(name: str, dtype: Any = jnp.float32) -> Any:
    """The Flax module that is what our model of this name is, of 400 classes."""
    kind, attention, classifier, sizes = MODELS[name]
    return getattr(importlib.import_module(SCENIC), kind)(
        num_classes=400,
        hidden_size=768,
        patches=ConfigDict({"size": (16, 16, 2)}),
        temporal_encoding_config=ConfigDict({"method": "3d_conv"}),
        attention_config=ConfigDict(attention),
        classifier=classifier,
        dtype=dtype,
        **sizes,
    )
