"""ViViT-L/16x2 factorized encoder on Something-Something v2: the regularized recipe (top-1 65.9 in the paper)."""

from vivit_jax import recipes


def get_config():
    config = recipes.large()
    config.model.update(num_classes=174, image_size=256, stochastic_depth=0.3)
    config.data.update(name="something_something_v2", stride=1.0)
    recipes.short_side(config, 288)
    # No flips: classes speak of left and right.
    config.augment.update(flip=0.0, randaugment=2, magnitude=20.0, mixup=0.3)
    config.schedule.learning_rate = 0.4
    config.train.update(epochs=35.0, label_smoothing=0.3)
    return config
