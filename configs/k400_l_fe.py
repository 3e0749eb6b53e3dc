"""ViViT-L/16x2 factorized encoder on Kinetics-400: the released recipe, 24 temporal layers (top-1 80.3)."""

from vivit_jax import recipes


def get_config():
    config = recipes.large(recipes.vivit())
    config.model.update(name="vivit_l16x2_fe", num_classes=400, temporal_layers=24)
    config.data.name = "kinetics400"
    recipes.kinetics_colors(config)
    config.schedule.learning_rate = 0.1
    config.train.epochs = 30.0
    return config
