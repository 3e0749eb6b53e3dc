"""ViViT-B/16x2 factorized encoder on Kinetics-400: the released recipe (top-1 78.4 from ImageNet-21k weights)."""

from vivit_jax.config import base


def get_config():
    config = base()
    config.init_from = "google/vit-base-patch16-224-in21k"
    config.model.update(name="vivit_b16x2_fe", num_classes=400, dtype="bfloat16", embedding_initializer="central_frame")
    config.data.update(name="kinetics400", stride=2.0, eval_resize=256)
    config.data.update(crop="jitter", crop_short_side=(0.9 * 256, 1.33 * 256))
    config.augment.update(flip=0.5, jitter=0.8, grayscale=0.1)
    config.optimizer.update(name="sgd", momentum=0.9, clip_norm=1.0)
    config.schedule.update(name="cosine", learning_rate=0.05, warmup_epochs=2.5)
    config.train.update(batch_size=64, epochs=30.0, checkpoint_every=1000)
    config.evaluation.update(batch_size=64, clips=4, crops=3, average="logits")
    return config
