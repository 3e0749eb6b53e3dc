"""The configuration of the runs in tests. Without JAX, for commands that only say what is wrong with their flags."""

from pathlib import Path

from vivit_jax.config import base


def config_dict(data_dir: Path, **changes):
    """A configuration of seconds; `changes` are dotted keys with __ for the dot."""
    config = base()
    config.model.update(name="vivit_ti16x2_fe", width=16, num_layers=2, num_heads=2, mlp_dim=32, temporal_layers=1)
    config.model.update(num_frames=4, image_size=32)
    config.data.update(name="tiny", data_dir=str(data_dir), eval_resize=32)
    config.augment.update(flip=0.5, jitter=0.5, grayscale=0.2)
    config.optimizer.update(name="adamw", weight_decay=0.01)
    # The same program for any number of epochs, which is compiled once.
    config.schedule.update(name="constant", learning_rate=3e-3, warmup_epochs=0.5)
    config.train.update(batch_size=16, epochs=3.0, log_every=1, checkpoint_every=100)
    config.evaluation.batch_size = 16
    for key, value in changes.items():
        *sections, name = key.split("__")
        section = config
        for part in sections:
            section = section[part]
        with section.ignore_type():
            section[name] = value
    return config
