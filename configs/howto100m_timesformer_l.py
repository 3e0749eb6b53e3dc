"""TimeSformer, 96 frames at 1/32, on HowTo100M's tasks: long videos (top-1 62.6; four clips cover one)."""

from vivit_jax import recipes


def get_config():
    config = recipes.timesformer()
    config.model.update(name="timesformer_l", num_classes=1059, remat="attention")
    config.data.name = "howto100m"
    recipes.every(config, 32)
    config.evaluation.update(clips=4, crops=1)
    return config
