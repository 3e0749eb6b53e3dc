"""Rollout against dense matrices, filled in token by token."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import naive
from models import ALL, make, video
from vivit_jax.errors import UserError
from vivit_jax.evaluation.rollout import Row, down, head_maps, keep, rollout

MEANS = {"factorized encoder by mean": "vivit_ti16x2_fe", "divided by mean": "timesformer_b"}
pytestmark = pytest.mark.filterwarnings("ignore:divide by zero")  # windows of a grid that is one token high


@cache
def looked_into(case, **overrides):
    """A model, its taps, their rollout and the heads of the first layer."""
    model = make(case, **overrides)

    @nnx.jit
    def look(model, x):
        taps = model(x, return_taps=lambda axes, weights: {"whole": weights, "kept": keep(axes, weights)})[1]
        small = only(taps, "kept")
        return only(taps, "whole"), rollout(model, small), head_maps(model, small, 0)

    return model, *look(model, video())


def only(taps, which):
    """The taps with one of the two things that are kept of attention."""
    by_axes = {name: taps[name]["attention"] for name in ("encoder", "temporal_encoder") if name in taps}
    return taps | {
        name: taps[name] | {"attention": {axes: of[which] for axes, of in found.items()}}
        for name, found in by_axes.items()
    }


def grid_of(model):
    return (4, 4, 4) if model.config.tubelet_size == 1 else (2, 4, 4)


def dense(axes, weights, grid, has_cls):
    """One attention's matrix [N, N], CLS first where there is one, of weights [groups, heads, L, L]."""
    labels, extra = naive.groups_of(axes, *grid), int(has_cls)
    matrix = np.zeros((labels.size + extra, labels.size + extra))
    for group, of_group in enumerate(np.asarray(weights, np.float64)):
        members = [int(index) + extra for index in np.flatnonzero(labels == group)]
        joins = of_group.shape[-1] == len(members) + 1
        tokens = [0, *members] if joins else members
        for row, token in enumerate(tokens):
            for column, other in enumerate(tokens):
                for of_head in of_group:
                    share = 1 / len(of_group) / (len(weights) if token == 0 and joins else 1)
                    matrix[token, other] += share * of_head[row, column]
    return matrix


def dense_rollout(attention, maps, grid, has_cls, cls_in_time=False):
    """The product over all layers, for one example: maps by axes [layers, groups, heads, L, L]."""
    size = int(np.prod(grid)) + has_cls
    product, layers = np.eye(size), len(next(iter(maps.values())))
    for layer in range(layers):
        branches = []
        for axes, _, _ in naive.STEPS[attention]:
            branches.append(np.mean([dense(name, maps[name][layer], grid, has_cls) for name in axes], axis=0))
        for together in [branches] if attention == "divided_parallel" else [[branch] for branch in branches]:
            matrix = np.eye(size) + sum(together)
            product = matrix / matrix.sum(1, keepdims=True) @ product
    np.testing.assert_allclose(product.sum(1), 1, atol=1e-5)
    return product


def example(taps, name, index, frame=None):
    """Of one example, and of one frame where frames attend alone."""
    maps = {axes: np.asarray(x[:, index]) for axes, x in taps[name]["attention"].items()}
    return maps if frame is None else {axes: x[:, frame : frame + 1] for axes, x in maps.items()}


@pytest.mark.parametrize("case", [*ALL, *MEANS])
def test_rollout_is_the_product_of_dense_matrices(case):
    model, taps, ours, _ = looked_into(MEANS[case], pool="mean") if case in MEANS else looked_into(case)
    grid, config, has_cls = grid_of(model), model.config, int(model.config.pool == "cls")
    assert ours.shape == (2, *grid)
    for index in range(2):
        if config.attention in ("space", "factorized_encoder"):
            frames = np.full(grid[0], 1 / grid[0])
            if config.attention == "factorized_encoder":
                time = dense_rollout("time", example(taps, "temporal_encoder", index), (grid[0], 1, 1), has_cls)
                frames = time[0, 1:] if has_cls else time.mean(0)
            wanted = []
            for frame in range(grid[0]):
                space = dense_rollout(config.attention, example(taps, "encoder", index, frame), (1, *grid[1:]), has_cls)
                wanted.append(frames[frame] * (space[0, 1:] if has_cls else space.mean(0)))
        else:
            product = dense_rollout(config.attention, example(taps, "encoder", index), grid, has_cls)
            wanted = product[0, 1:] if has_cls else product.mean(0)
        np.testing.assert_allclose(ours[index], np.reshape(wanted, grid), atol=1e-6)
        assert np.ptp(np.asarray(ours[index])) > 1e-4  # and it says something


@pytest.mark.parametrize("case", [case for case in ALL if case not in ("vivit_ti16x2_fe", "timesformer_b_space")])
def test_every_row_of_the_matrix(case):
    """Each token's row, CLS's included: of as many copies of one example as there are tokens."""
    model, taps, *_ = looked_into(case)
    grid, has_cls = grid_of(model), int(model.config.pool == "cls")
    maps = example(taps, "encoder", 0)
    wanted = dense_rollout(model.config.attention, maps, grid, has_cls)
    size = len(wanted)
    start = jnp.eye(size)
    row = Row(start[:, has_cls:].reshape(size, *grid), start[:, :1] if has_cls else None)
    means = {axes: jnp.repeat(jnp.asarray(x).mean(2)[:, None], size, axis=1) for axes, x in maps.items()}
    found = jax.jit(down, static_argnums=1)(row, model.config.attention, means)
    ours = np.asarray(found.patches).reshape(size, -1)
    ours = ours if found.cls is None else np.concatenate([found.cls, ours], axis=1)
    np.testing.assert_allclose(ours, wanted, atol=1e-6)
    np.testing.assert_allclose(ours.sum(1), 1, atol=1e-5)


@pytest.mark.parametrize("case", ALL)
def test_heads_one_by_one(case):
    """The row of CLS, or the mean of the patches' rows where it takes no part, of the layer that is asked for."""
    model, taps, _, found = looked_into(case)
    grid, config, has_cls = grid_of(model), model.config, model.config.pool == "cls"
    per_frame = config.attention in ("space", "factorized_encoder")
    for axes, ours in found.items():
        name, shape = ("temporal_encoder", (grid[0], 1, 1)) if axes == "temporal" else ("encoder", grid)
        weights = taps[name]["attention"]["time" if axes == "temporal" else axes][-1 if axes == "temporal" else 0]
        assert ours.shape == (2, weights.shape[2], *shape)
        for head in range(weights.shape[2]):
            of_head = np.asarray(weights[1, :, head : head + 1])
            if per_frame and axes == "space":  # every frame's own
                wanted = np.concatenate([dense(axes, x[None], (1, *grid[1:]), has_cls)[0, 1:] for x in of_head])
            else:
                matrix = dense("time" if axes == "temporal" else axes, of_head, shape, has_cls)
                takes = has_cls and matrix[0].any()
                wanted = matrix[0, 1:] if takes else matrix[int(has_cls) :, int(has_cls) :].mean(0)
            np.testing.assert_allclose(np.asarray(ours[1, head]).reshape(-1), wanted.reshape(-1), atol=1e-6)


@pytest.mark.parametrize("case", ["vivit_ti16x2_fe", "vivit_ti16x2_fdpa", "timesformer_b"])
def test_whole_weights_say_the_same(case):
    model, taps, rolled, heads = looked_into(case)
    np.testing.assert_allclose(rollout(model, taps), rolled, atol=1e-6)
    for axes, of_axes in head_maps(model, taps, 0).items():
        np.testing.assert_allclose(of_axes, heads[axes], atol=1e-6)


def test_no_such_layer():
    with pytest.raises(UserError, match="layer: 2 is none of the 2"):
        head_maps(make("timesformer_b"), {"embedding": jnp.zeros((1, 4, 4, 4, 24))}, 2)
