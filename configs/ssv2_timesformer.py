"""TimeSformer, 8 frames, on Something-Something v2: the released recipe, frames by segment (top-1 59.5)."""

from vivit_jax import recipes


def get_config():
    config = recipes.timesformer()
    config.model.update(name="timesformer_b", num_classes=174)
    config.data.update(name="something_something_v2", sampling="segments")
    config.augment.flip = 0.0  # classes speak of left and right
    return config
