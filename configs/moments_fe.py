"""ViViT-L/16x2 factorized encoder on Moments in Time: the paper's recipe, as far as it is told; none was released."""

from vivit_jax import recipes


def get_config():
    config = recipes.large(recipes.vivit())
    config.model.update(name="vivit_l16x2_fe", num_classes=339)
    config.data.name = "moments_in_time"
    recipes.kinetics_colors(config)
    config.schedule.learning_rate = 0.25
    config.train.epochs = 10.0
    return config
