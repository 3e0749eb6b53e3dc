"""Tubelets, frames and positions, beside numbers of the original's helpers."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vivit_jax
from vivit_jax.models.initializers import Keys, inflate
from vivit_jax.models.tokenizers import TubeletEmbedding, resize_axis, uniform_frames

GOLDEN = dict(np.load(Path(__file__).parent / "goldens" / "init_helpers.npz"))


@pytest.mark.parametrize("name", [name for name in GOLDEN if name.startswith("sample_frames_uniformly")])
def test_uniform_frames(name):
    frames, count = map(int, name.removeprefix("sample_frames_uniformly_").split("_to_"))
    if count <= frames:  # more than there are is an error of the model's
        np.testing.assert_array_equal(uniform_frames(frames, count), GOLDEN[name][:count])


@pytest.mark.parametrize("name", [name for name in GOLDEN if name.startswith("interp")])
def test_positions_are_resized_as_the_original_does(name):
    source, _, size = name.partition("_to_")
    if source.startswith("interp1d"):
        ours = resize_axis(jnp.asarray(GOLDEN[f"pos1d_{source.split('_')[1]}"]), 0, int(size), "linear")
    else:
        table = GOLDEN[source.removeprefix("interp_")]
        side, new = round(len(table) ** 0.5), round(int(size) ** 0.5)
        grid = jnp.asarray(table.reshape(side, side, -1))
        ours = resize_axis(resize_axis(grid, 0, new, "linear"), 1, new, "linear").reshape(int(size), -1)
    np.testing.assert_allclose(ours, GOLDEN[name][0], atol=1e-5)


def test_positions_can_grow_along_one_axis():
    table = jnp.arange(3.0)[:, None] * jnp.ones((3, 2))
    np.testing.assert_allclose(resize_axis(table, 0, 5, "linear")[:, 0], [0, 0.5, 1, 1.5, 2])
    np.testing.assert_allclose(resize_axis(table, 0, 5, "nearest")[:, 0], [0, 0, 1, 1, 2])
    np.testing.assert_allclose(resize_axis(table, 0, 1, "linear")[:, 0], [0])


def test_tubelet_embedding_is_the_papers_convolution():
    config = vivit_jax.create_model("vivit_ti16x2", 5, num_layers=1, num_frames=4, image_size=(32, 48)).config
    embedding = TubeletEmbedding(config, Keys(0))
    embedding.bias[...] = jax.random.normal(jax.random.key(1), embedding.bias.shape)
    video = jax.random.normal(jax.random.key(0), (2, 4, 32, 48, 3))
    kernel = embedding.kernel[...]
    convolved = jax.lax.conv_general_dilated(
        video, kernel, (2, 16, 16), "VALID", dimension_numbers=("NDHWC", "DHWIO", "NDHWC")
    )
    np.testing.assert_allclose(embedding(video), convolved + embedding.bias[...], atol=1e-5)


@pytest.mark.parametrize("how", ["central_frame", "inflation"])
def test_an_inflated_kernel_sees_a_still_clip_as_the_image(how):
    kernel = jax.random.normal(jax.random.key(0), (8, 8, 3, 16))
    picture = jax.random.normal(jax.random.key(1), (8, 8, 3))
    inflated = inflate(kernel, 4, how)
    still = jnp.einsum("hwc,thwcd->d", picture, inflated)
    np.testing.assert_allclose(still, jnp.einsum("hwc,hwcd->d", picture, kernel), atol=1e-4)
    moving = jnp.einsum("thwc,thwcd->td", jax.random.normal(jax.random.key(2), (4, 8, 8, 3)), inflated)
    assert ((jnp.abs(moving).sum(1) > 0) == (np.arange(4) == 2 if how == "central_frame" else np.ones(4))).all()


@pytest.mark.parametrize("how", ["random", "central_frame", "inflation"])
def test_embedding_initializer(how):
    model = vivit_jax.create_model("vivit_ti16x4", 5, num_layers=1, embedding_initializer=how)
    frames = np.asarray(model.embedding.kernel[...])
    used = np.abs(frames).sum((1, 2, 3, 4)) > 0
    assert (used == (np.arange(4) == 2 if how == "central_frame" else np.ones(4))).all()
    assert (np.abs(frames - frames[:1]).max() == 0) == (how == "inflation")
