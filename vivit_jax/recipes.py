"""What the released recipes of each paper share; a file of configs/ says what differs."""

from typing import Any

from vivit_jax.config import base


def vivit() -> Any:
    """ViViT's released configs: an ImageNet-21k ViT-B, 32 frames, SGD and cosine, 4 clips x 3 crops at test."""
    config = base()
    config.init_from = "google/vit-base-patch16-224-in21k"
    config.model.update(dtype="bfloat16", embedding_initializer="central_frame")
    config.data.update(stride=2.0, crop="stretch")
    short_side(config, 256)
    config.augment.flip = 0.5
    config.optimizer.update(name="sgd", momentum=0.9, clip_norm=1.0)
    config.schedule.update(name="cosine", warmup_epochs=2.5)
    config.train.update(batch_size=64, checkpoint_every=1000)
    config.evaluation.update(batch_size=64, clips=4, crops=3, average="logits")
    return config


def large() -> Any:
    """ViViT-L's factorized encoder."""
    config = vivit()
    config.init_from = "google/vit-large-patch16-224-in21k"
    config.model.name = "vivit_l16x2_fe"
    return config


def short_side(config: Any, pixels: int) -> None:
    """Pixels of the picture's short side that ViViT's scale jitter (0.9 to 1.33) and its test crops start from."""
    config.data.update(eval_resize=pixels, crop_short_side=(0.9 * pixels, 1.33 * pixels))


def jittered(config: Any, dataset: str, num_classes: int, learning_rate: float, epochs: float) -> Any:
    """ViViT on Kinetics and Moments in Time: colors are jittered, nothing else regularizes."""
    config.data.name, config.model.num_classes = dataset, num_classes
    config.augment.update(jitter=0.8, grayscale=0.1)
    config.schedule.learning_rate, config.train.epochs = learning_rate, epochs
    return config


def timesformer() -> Any:
    """TimeSformer's released configs: an ImageNet-21k ViT-B, SGD in three steps, 1 clip x 3 crops at test.

    The clip is the middle one and probabilities are averaged, as the paper says; the release takes the first frames and
    sums logits: --config.evaluation.starts=timesformer_release --config.evaluation.average=logits.
    """
    config = base()
    config.init_from = "google/vit-base-patch16-224-in21k"
    config.model.dtype = "bfloat16"
    config.data.update(short_clips="hold", crop="jitter", crop_short_side=(256, 320), eval_resize=224)
    config.augment.flip = 0.5
    config.optimizer.update(name="sgd", momentum=0.9, nesterov=True, weight_decay=1e-4, clip_norm=0.0, no_decay="")
    config.schedule.update(name="step", learning_rate=0.005, step_epochs=(11.0, 14.0), step_factor=0.1)
    config.train.update(batch_size=64, epochs=15.0, checkpoint_every=1000)
    config.evaluation.update(batch_size=64, clips=1, crops=3)
    return config


def every(config: Any, frames: int) -> None:
    """One of so many frames is kept, of a video of 30 a second; of others as many in a second."""
    config.data.update(sampling="span", stride=0.0, target_fps=30 / frames)
