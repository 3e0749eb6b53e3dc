"""TimeSformer-HR, 16 frames of 448 x 448, on Kinetics-400: the released recipe (top-1 79.7)."""

from vivit_jax import recipes


def get_config():
    config = recipes.timesformer()
    config.model.update(name="timesformer_hr", num_classes=400, remat="attention")
    recipes.every(config, 16)
    config.data.update(name="kinetics400", crop_short_side=(448, 512), eval_resize=448)
    return config
