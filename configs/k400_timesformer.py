"""TimeSformer, 8 frames, on Kinetics-400: the released recipe (top-1 78.0)."""

from vivit_jax import recipes


def get_config():
    config = recipes.timesformer()
    config.model.update(name="timesformer_b", num_classes=400)
    config.data.name = "kinetics400"
    recipes.every(config, 32)
    return config
