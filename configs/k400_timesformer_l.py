"""TimeSformer-L, 96 frames, on Kinetics-400: the released recipe (top-1 80.7)."""

from vivit_jax import recipes


def get_config():
    config = recipes.timesformer()
    config.model.update(name="timesformer_l", num_classes=400, remat="attention")
    config.data.name = "kinetics400"
    recipes.every(config, 4)
    return config
