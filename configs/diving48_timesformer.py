"""TimeSformer, 8 frames, on Diving-48 (top-1 74.9). Neither paper nor release says how its frames were sampled:
by segment, as for Something-Something v2, since a dive is the whole clip.
"""

from vivit_jax import recipes


def get_config():
    config = recipes.timesformer()
    config.model.update(name="timesformer_b", num_classes=48)
    config.data.update(name="diving48", sampling="segments")
    config.evaluation.splits = ("test",)
    return config
