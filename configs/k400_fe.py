"""ViViT-B/16x2 factorized encoder on Kinetics-400: the released recipe (top-1 78.4 from ImageNet-21k weights)."""

from vivit_jax import recipes


def get_config():
    config = recipes.jittered(recipes.vivit(), "kinetics400", 400, learning_rate=0.05, epochs=30.0)
    config.model.name = "vivit_b16x2_fe"
    return config
