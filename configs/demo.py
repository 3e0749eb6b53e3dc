"""A small factorized encoder that learns which way things move, on videos that are generated on first use."""

from vivit_jax.config import base


def get_config():
    config = base()
    config.model.name = "vivit_ti16x2_fe"
    config.model.update(width=96, num_layers=3, num_heads=4, mlp_dim=384)
    config.model.update(num_frames=8, image_size=48, patch_size=8)
    config.data.update(name="motion", generator="motion", stride=2.0, crop_area=(0.8, 1.0), eval_resize=54)
    config.augment.flip = 0.0  # left and right are labels
    config.optimizer.update(name="adamw", weight_decay=0.01)
    config.schedule.update(learning_rate=1e-3, warmup_epochs=1.0)
    config.train.update(batch_size=32, epochs=10.0, eval_every_epochs=2.0, log_every=20, checkpoint_every=128)
    config.evaluation.batch_size = 64
    return config
