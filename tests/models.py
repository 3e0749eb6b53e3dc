"""Tiny models of every scheme, with random parameters."""

import jax
from flax import nnx

import vivit_jax
from vivit_jax.architecture import Preprocessing

TINY = dict(num_frames=4, image_size=32, patch_size=8, width=24, num_layers=2, num_heads=4, mlp_dim=32)
MODELS = {  # every scheme, by its name in a model's name or by an override
    "vivit_ti16x2": {},
    "vivit_ti16x2_fe": {"temporal_layers": 2},
    "vivit_ti16x2_fsa": {},
    "vivit_ti16x2_fdpa": {},
    "timesformer_b": {},
    "timesformer_b_space": {},
    "timesformer_b_time": {},
    "timesformer_b_joint": {},
    "timesformer_b_local_global": {},
    "timesformer_b_axial": {},
}
EXTRA = {
    "time first": ("vivit_ti16x2_fsa", {"attention": "factorized_self_attention_time_space"}),
    "space, then time": ("timesformer_b", {"attention": "divided_space_time"}),
    "parallel": ("timesformer_b", {"attention": "divided_parallel"}),
    "CLS in time": ("timesformer_b", {"cls_in_time": True}),
}
ALL = {name: (name, fields) for name, fields in MODELS.items()} | EXTRA


def randomize(model, seed=0):
    """Random parameters everywhere: zero-initialized layers would hide mistakes."""
    graph, state = nnx.split(model)
    leaves, tree = jax.tree.flatten(state)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    return nnx.merge(
        graph, jax.tree.unflatten(tree, [0.3 * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves)])
    )


def make(case, classes=5, **overrides):
    name, fields = ALL[case]
    return randomize(vivit_jax.create_model(name, classes, **TINY | fields | overrides))


def fed(model, **changes):
    """The model with a preprocessing for what it is made for."""
    model.preprocessing = Preprocessing(**{"num_frames": 4, "stride": 2.0, "image_size": (32, 32), **changes})
    return model


def video(batch=2, frames=4, height=32, width=32, seed=1):
    return jax.random.normal(jax.random.key(seed), (batch, frames, height, width, 3))
