"""ViViT-L/16x2 factorized encoder on Epic-Kitchens-100, verb and noun: the regularized recipe (action top-1 44.0)."""

from vivit_jax import recipes


def get_config():
    config = recipes.large()
    config.model.update(num_classes={"verb": 97, "noun": 300}, stochastic_depth=0.2)
    config.data.update(name="epic_kitchens100", stride=1.0)
    config.augment.update(randaugment=2, magnitude=15.0, mixup=0.1)
    config.schedule.learning_rate = 0.5
    config.train.update(epochs=50.0, label_smoothing=0.2)
    return config
