"""A model's parameters by path, and a model of them."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from vivit_jax.architecture import Labels, ModelConfig
from vivit_jax.checkpoints.conversion import Checkpoint
from vivit_jax.models.initializers import Keys
from vivit_jax.models.video_transformer import VideoTransformer


def abstract_model(config: ModelConfig, checkpoint: Checkpoint) -> VideoTransformer:
    """The model's structure; nothing is computed."""
    labels = _fitting(checkpoint.labels, config)
    return nnx.eval_shape(lambda: VideoTransformer(config, checkpoint.preprocessing, Keys(0), labels))


def _fitting(labels: Labels | None, config: ModelConfig) -> Labels | None:
    """Without those of heads that have other classes now."""
    if not isinstance(labels, dict):
        return labels if labels and config.num_classes == len(labels) else None
    return {head: names for head, names in labels.items() if config.heads.get(head) == len(names)} or None


def paths(model: Any) -> dict[str, Any]:
    """Parameters (or a pure dict of them) by path: "encoder/blocks/0/mlp/up/kernel"."""
    tree = nnx.to_pure_dict(nnx.state(model, nnx.Param)) if isinstance(model, nnx.Module) else model
    return {jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in jax.tree.leaves_with_path(tree)}


def filled(model: VideoTransformer, arrays: Mapping[str, Any]) -> VideoTransformer:
    """The model with its parameters."""
    graph, state = nnx.split(model, nnx.Param)

    def take(path, _):
        return jnp.asarray(arrays[jax.tree_util.keystr(path, simple=True, separator="/")])

    nnx.replace_by_pure_dict(state, jax.tree.map_with_path(take, nnx.to_pure_dict(state)))
    return nnx.merge(graph, state)
