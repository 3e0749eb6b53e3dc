"""ViViT-L/16x2 factorized encoder on Moments in Time: the paper's recipe, as far as it is told; none was released."""

from vivit_jax import recipes


def get_config():
    return recipes.jittered(recipes.large(), "moments_in_time", 339, learning_rate=0.25, epochs=10.0)
