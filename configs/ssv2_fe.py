"""ViViT-L/16x2 factorized encoder on Something-Something v2: the regularized recipe (top-1 65.9 in the paper)."""

from vivit_jax.config import base


def get_config():
    config = base()
    config.init_from = "google/vit-large-patch16-224-in21k"
    config.model.update(name="vivit_l16x2_fe", num_classes=174, image_size=256, dtype="bfloat16", scan=True)
    config.model.update(embedding_initializer="central_frame", stochastic_depth=0.3)
    config.data.update(name="something_something_v2", stride=1.0, eval_resize=288)
    config.data.update(crop="jitter", crop_short_side=(0.9 * 288, 1.33 * 288))
    config.augment.update(randaugment=2, magnitude=20.0, mixup=0.3)  # no flips: classes speak of left and right
    config.optimizer.update(name="sgd", momentum=0.9, clip_norm=1.0)
    config.schedule.update(name="cosine", learning_rate=0.4, warmup_epochs=2.5)
    config.train.update(batch_size=64, epochs=35.0, label_smoothing=0.3, checkpoint_every=1000)
    config.evaluation.update(batch_size=64, clips=4, crops=3, average="logits")
    return config
