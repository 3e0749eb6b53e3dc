"""ViViT-L/16x2 factorized encoder on Kinetics-600: the released recipe, 24 temporal layers (top-1 81.6)."""

from vivit_jax import recipes


def get_config():
    config = recipes.large(recipes.vivit())
    config.model.update(name="vivit_l16x2_fe", num_classes=600, temporal_layers=24)
    config.data.name = "kinetics600"
    recipes.kinetics_colors(config)
    config.schedule.learning_rate = 0.05
    config.train.epochs = 30.0
    return config
