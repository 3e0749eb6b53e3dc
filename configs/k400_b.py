"""ViViT-B/16x2, model 1, on Kinetics-400: the released recipe (top-1 79.9 from ImageNet-21k weights)."""

from vivit_jax import recipes


def get_config():
    config = recipes.vivit()
    config.init_from = "google/vit-base-patch16-224-in21k"
    config.model.update(name="vivit_b16x2", num_classes=400, remat="attention")
    config.data.name = "kinetics400"
    recipes.kinetics_colors(config)
    config.schedule.learning_rate = 0.1
    config.train.epochs = 30.0
    return config
