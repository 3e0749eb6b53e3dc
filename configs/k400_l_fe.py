"""ViViT-L/16x2 factorized encoder on Kinetics-400: the released recipe, 24 temporal layers (top-1 80.3)."""

from vivit_jax import recipes


def get_config():
    config = recipes.jittered(recipes.large(), "kinetics400", 400, learning_rate=0.1, epochs=30.0)
    config.model.temporal_layers = 24
    return config
