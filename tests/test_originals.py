"""Logits, losses, embeddings and gradients of the original implementations, from their golden files."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import originals
import vivit_jax
from vivit_jax.checkpoints.parameters import paths

VIVIT = dict(image_size=32, patch_size=8, width=32, num_heads=4, mlp_dim=64, num_frames=8, num_layers=2)
TEMPORAL = dict(temporal_layers=1, temporal_heads=2, temporal_mlp_dim=48)
TIMESFORMER = dict(image_size=32, patch_size=8, width=32, num_heads=4, mlp_dim=64, num_frames=4, num_layers=2)
CASES = {
    "spacetime_tubelet_token": ("vivit_b16x2", VIVIT),
    "spacetime_uniform_gap_prelogits": (
        "vivit_b16x1",
        VIVIT | dict(sampled_frames=4, pool="mean", representation_size=16),
    ),
    "fe_tubelet_token": ("vivit_b16x2_fe", VIVIT | TEMPORAL),
    "fsa_tubelet_gap_time_space": (
        "vivit_b16x2_fsa",
        VIVIT | dict(attention="factorized_self_attention_time_space"),
    ),
    "fdpa_tubelet_gap": ("vivit_b16x2_fdpa", VIVIT),
    "fb_timesformer_divided_space_time": ("timesformer_b", TIMESFORMER | dict(num_layers=3)),
    "fb_timesformer_space_only": ("timesformer_b_space", TIMESFORMER | dict(num_layers=3)),
    "ref_axial": ("timesformer_b_axial", TIMESFORMER),
    "ref_sparse_local_global": ("timesformer_b_local_global", TIMESFORMER),
}


def _section(golden, prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): golden[name] for name in golden if name.startswith(prefix)}


def _video(golden, name: str = "input") -> jax.Array:
    channels_last = golden[name].shape[-1] == 3
    return jnp.asarray(golden[name] if channels_last else golden[name].transpose(0, 1, 3, 4, 2))


@pytest.mark.parametrize("name", CASES)
def test_original(name):
    golden, model = _load(name)
    labels = jnp.asarray(golden.get("labels", [1, 4]))

    graph, state = nnx.split(model)

    @jax.jit
    def value_and_gradients(state):
        def loss(state):
            logits = nnx.merge(graph, state)(_video(golden))
            return -jax.nn.log_softmax(logits)[jnp.arange(len(labels)), labels].mean(), logits

        return jax.value_and_grad(loss, has_aux=True)(state)

    (value, logits), gradients = value_and_gradients(state)
    np.testing.assert_allclose(logits, golden["logits"], atol=1e-5)
    np.testing.assert_allclose(value, golden["loss" if "loss" in golden else "loss_ce_labels_1_4"], atol=5e-6)
    ours = paths(nnx.to_pure_dict(gradients))
    wanted = originals.to_ours(_section(golden, "grad/"), model)
    assert wanted
    for path, gradient in wanted.items():
        # That of the keys' bias is zero but for rounding, as large as that of the queries' is.
        scale = np.abs(wanted[path.replace("key/bias", "query/bias")]).max()
        np.testing.assert_allclose(ours[path], gradient, atol=1e-4 * scale, err_msg=path)


def _load(name: str):
    golden = dict(np.load(Path(__file__).parent / "goldens" / f"{name}.npz"))
    variant, fields = CASES[name]
    model = vivit_jax.create_model(variant, golden["logits"].shape[-1], **fields)
    return golden, originals.load(_section(golden, "param/"), model)


@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith(("fb", "ref"))])
def test_intermediates(name):
    golden, model = _load(name)
    _, taps = nnx.jit(lambda model, x: model(x, return_taps=True))(model, _video(golden))
    embedding = golden["inter/embedding"]
    assert {"inter/Transformer", "inter/TemporalTransformer"} & golden.keys()
    np.testing.assert_allclose(taps["embedding"].reshape(embedding.shape), embedding, atol=1e-5)
    np.testing.assert_allclose(taps["features"], golden["pre_logits"], atol=1e-5)
    for ours, original in (("encoder", "inter/Transformer"), ("temporal_encoder", "inter/TemporalTransformer")):
        if original in golden:
            tokens = taps[ours]["output"]
            patches = tokens.patches.reshape(2, -1, tokens.patches.shape[-1])
            joined = patches if tokens.cls is None else np.concatenate([tokens.cls, patches], axis=1)
            np.testing.assert_allclose(joined, golden[original], atol=1e-5)
    features = nnx.jit(lambda model, x: model.features(x))(model, _video(golden))
    np.testing.assert_allclose(features, taps["features"], atol=1e-6)


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("fb")])
@pytest.mark.parametrize("other", ["moreT", "hires"])
def test_other_frames_and_pixels(name, other):
    """The released TimeSformer resizes its positions by nearest neighbor at run time."""
    golden, model = _load(name)
    logits = nnx.jit(lambda model, x: model(x))(model, _video(golden, f"input_{other}"))
    np.testing.assert_allclose(logits, golden[f"logits_{other}"], atol=1e-5)
