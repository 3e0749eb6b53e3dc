"""TimeSformer on Kinetics-400: the released recipe (top-1 78.0 from ImageNet-21k weights), 8 frames at 1/32 of 30 fps.

Tested on the middle clip and three crops, as the paper says; the release takes the clip at the start and sums logits:
--config.evaluation.starts=timesformer_release --config.evaluation.average=logits.
"""

from vivit_jax.config import base


def get_config():
    config = base()
    config.init_from = "google/vit-base-patch16-224-in21k"
    config.model.update(name="timesformer_b", num_classes=400, dtype="bfloat16")
    config.data.update(name="kinetics400", sampling="span", stride=0.0, target_fps=30 / 32, short_clips="hold")
    config.data.update(crop="jitter", crop_short_side=(256, 320), eval_resize=224)
    config.augment.update(flip=0.5)
    config.optimizer.update(name="sgd", momentum=0.9, nesterov=True, clip_norm=0.0, weight_decay=1e-4)
    config.schedule.update(name="step", learning_rate=0.005, step_epochs=(11.0, 14.0))
    config.train.update(batch_size=64, epochs=15.0, checkpoint_every=1000)
    config.evaluation.update(batch_size=64, clips=1, crops=3)
    return config
