"""ViViT-B/16x2, model 1, on Kinetics-400: the released recipe (top-1 79.9 from ImageNet-21k weights)."""

from vivit_jax import recipes


def get_config():
    config = recipes.jittered(recipes.vivit(), "kinetics400", 400, learning_rate=0.1, epochs=30.0)
    config.model.update(name="vivit_b16x2", remat="attention")
    return config
