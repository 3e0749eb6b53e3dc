"""ViViT-L/16x2 factorized encoder on Epic-Kitchens-100, verb and noun: the regularized recipe (action top-1 44.0)."""

from vivit_jax.config import base


def get_config():
    config = base()
    config.init_from = "google/vit-large-patch16-224-in21k"
    config.model.update(name="vivit_l16x2_fe", num_classes={"verb": 97, "noun": 300}, dtype="bfloat16", scan=True)
    config.model.update(embedding_initializer="central_frame", stochastic_depth=0.2)
    config.data.update(name="epic_kitchens100", stride=1.0, eval_resize=256)
    config.data.update(crop="jitter", crop_short_side=(0.9 * 256, 1.33 * 256))
    config.augment.update(flip=0.5, randaugment=2, magnitude=15.0, mixup=0.1)
    config.optimizer.update(name="sgd", momentum=0.9, clip_norm=1.0)
    config.schedule.update(name="cosine", learning_rate=0.5, warmup_epochs=2.5)
    config.train.update(batch_size=64, epochs=50.0, label_smoothing=0.2, checkpoint_every=1000)
    config.evaluation.update(batch_size=64, clips=4, crops=3, average="logits")
    return config
