"""Video transformers in JAX: ViViT and TimeSformer."""

from vivit_jax.models.video_transformer import create_model
from vivit_jax.variants import list_models

__version__ = "0.1.0"
__all__ = ["create_model", "list_models"]
