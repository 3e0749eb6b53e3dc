"""Video transformers in JAX: ViViT and TimeSformer."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vivit_jax.checkpoints.export import save_pretrained
    from vivit_jax.checkpoints.pretrained import load_model
    from vivit_jax.checkpoints.stablehlo import export_forward
    from vivit_jax.evaluation.predict import predict
    from vivit_jax.models.video_transformer import create_model
    from vivit_jax.variants import list_models

__version__ = "0.1.0"
__all__ = ["create_model", "export_forward", "list_models", "load_model", "predict", "save_pretrained"]

_HOMES = {
    "create_model": "vivit_jax.models.video_transformer",
    "export_forward": "vivit_jax.checkpoints.stablehlo",
    "list_models": "vivit_jax.variants",
    "load_model": "vivit_jax.checkpoints.pretrained",
    "predict": "vivit_jax.evaluation.predict",
    "save_pretrained": "vivit_jax.checkpoints.export",
}


def __getattr__(name: str) -> Any:
    """Imports on first use: processes that only decode videos start without JAX."""
    if name not in _HOMES:
        raise AttributeError(f"module 'vivit_jax' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
