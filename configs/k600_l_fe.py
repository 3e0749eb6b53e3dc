"""ViViT-L/16x2 factorized encoder on Kinetics-600: the released recipe, 24 temporal layers (top-1 81.6)."""

from vivit_jax import recipes


def get_config():
    config = recipes.jittered(recipes.large(), "kinetics600", 600, learning_rate=0.05, epochs=30.0)
    config.model.temporal_layers = 24
    return config
