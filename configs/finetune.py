"""A model on videos of your own, ingested under the name `mine`; set what differs by flags or in a copy.

Few videos are enough where it starts from other weights: --config.init_from=facebook/timesformer-base-finetuned-k400.
With very few, --config.optimizer.freeze='^(embedding|encoder/(blocks/[0-7]/|cls|positions))' trains the last layers.
"""

from vivit_jax.config import base


def get_config():
    config = base()
    config.model.update(name="timesformer_b", dropout=0.1)
    config.data.update(name="mine", stride=8.0, crop_area=(0.4, 1.0))
    config.augment.update(jitter=0.5)
    config.optimizer.update(name="adamw", weight_decay=0.05, layer_decay=0.75)
    config.schedule.update(learning_rate=1e-4, warmup_epochs=2.0)
    config.train.update(batch_size=16, epochs=20.0, label_smoothing=0.1, eval_every_epochs=5.0, checkpoint_every=100)
    config.evaluation.update(clips=2, crops=1)
    return config
