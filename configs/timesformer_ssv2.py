"""TimeSformer on Something-Something v2: the released recipe (top-1 59.5), a frame from each of 8 parts of the video.

For Diving-48 set data.name, model.num_classes (48) and evaluation.splits (test).
"""

from vivit_jax.config import base


def get_config():
    config = base()
    config.init_from = "google/vit-base-patch16-224-in21k"
    config.model.update(name="timesformer_b", num_classes=174, dtype="bfloat16")
    config.data.update(name="something_something_v2", sampling="segments", eval_resize=224)
    config.data.update(crop="jitter", crop_short_side=(256, 320))
    config.augment.update(flip=0.0)  # classes speak of left and right
    config.optimizer.update(name="sgd", momentum=0.9, nesterov=True, clip_norm=0.0, weight_decay=1e-4)
    config.schedule.update(name="step", learning_rate=0.005, step_epochs=(11.0, 14.0))
    config.train.update(batch_size=64, epochs=15.0, checkpoint_every=1000)
    config.evaluation.update(batch_size=64, clips=1, crops=3)
    return config
