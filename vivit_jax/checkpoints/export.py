"""Our models out: in Hugging Face's own layout where transformers has the model, else in the same style."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from vivit_jax.architecture import ModelConfig
from vivit_jax.checkpoints.conversion import write
from vivit_jax.checkpoints.huggingface import OURS, PREFIX, rules
from vivit_jax.checkpoints.parameters import paths
from vivit_jax.checkpoints.timesformer import ATTENTION
from vivit_jax.errors import UserError
from vivit_jax.files import replacing, write_json
from vivit_jax.models.video_transformer import VideoTransformer


def save_pretrained(model: VideoTransformer, directory: str | Path) -> None:
    """Writes config.json, preprocessor_config.json and model.safetensors, which `load_model` reads back exactly.

    A TimeSformer (divided or joint) and a ViViT model 1 are written as transformers has them, and give the same logits
    there; every other model under our own model_type. Each file is written whole or not at all, config.json the last.

    Raises:
      UserError: the directory cannot be written.
    """
    directory, config = Path(directory), model.config
    model_type = huggingface_type(config)
    tensors = write(
        {k: np.asarray(x) for k, x in paths(model).items()}, rules(model_type, config, PREFIX.get(model_type, ""))
    )
    kept = {"architecture": dataclasses.asdict(config), "preprocessing": dataclasses.asdict(model.preprocessing)}
    values = {"model_type": model_type, **_theirs(model_type, config), **_labels(model), OURS: kept}
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with replacing(directory / "model.safetensors") as temporary:
            save_file(tensors, temporary, metadata={"format": "pt"})
        write_json(directory / "preprocessor_config.json", _processor(model, model_type))
        write_json(directory / "config.json", values)
    except OSError as error:
        raise UserError(f"{directory}: cannot be written: {error.strerror or error}") from error


def huggingface_type(config: ModelConfig) -> str:
    """The model_type of transformers that has exactly this model, or ours."""
    square = len({*config.image_size}) == len({*config.patch_size}) == 1
    if not square or config.pool != "cls" or config.representation_size or config.sampled_frames or config.cls_in_time:
        return OURS
    if not isinstance(config.num_classes, int):
        return OURS
    if config.attention in ("divided", "joint") and config.positions == "space_time" and config.tubelet_size == 1:
        return "timesformer"
    return "vivit" if config.attention == "joint" and config.positions == "joint" and config.num_frames > 1 else OURS


def _theirs(model_type: str, config: ModelConfig) -> dict[str, Any]:
    """The keys that transformers reads."""
    if model_type == OURS:
        return {}
    shared = {
        "hidden_size": config.width,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.mlp_dim,
        "num_frames": config.num_frames,
        "image_size": config.image_size[0],
        "num_channels": 3,
        "qkv_bias": True,
        "layer_norm_eps": config.layer_norm_eps,
        "hidden_act": "gelu" if config.gelu == "exact" else "gelu_pytorch_tanh",
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.attention_dropout,
    }
    if model_type == "vivit":
        tubelet = [config.tubelet_size, *config.patch_size]
        return {"architectures": ["VivitForVideoClassification"], **shared, "tubelet_size": tubelet}
    attention = next(theirs for theirs, ours in ATTENTION.items() if ours == config.attention)
    return {
        "architectures": ["TimesformerForVideoClassification"],
        **shared,
        "patch_size": config.patch_size[0],
        "attention_type": attention,
        "drop_path_rate": 0,  # transformers 5 wants an integer; ours is kept beside it
    }


def _labels(model: VideoTransformer) -> dict[str, Any]:
    classes = model.config.num_classes
    if not isinstance(classes, int):
        return {"labels": model.labels} if model.labels else {}
    names = model.labels or tuple(f"LABEL_{index}" for index in range(classes))
    return {
        "id2label": {str(index): name for index, name in enumerate(names)},
        "label2id": {name: index for index, name in enumerate(names)},
    }


def _processor(model: VideoTransformer, model_type: str) -> dict[str, Any]:
    """What transformers' processors read; all do (pixel * rescale_factor - mean) / std."""
    feeding = model.preprocessing
    height, width = feeding.image_size
    return {
        "image_processor_type": "VivitImageProcessor" if model_type == "vivit" else "VideoMAEImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": feeding.resize or min(height, width)},
        "do_center_crop": True,
        "crop_size": {"height": height, "width": width},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "offset": False,
        "do_normalize": True,
        "image_mean": list(feeding.mean),
        "image_std": list(feeding.std),
    }
