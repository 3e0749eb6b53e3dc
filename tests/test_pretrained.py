"""Checkpoints of every published format give the originals' logits."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import vivit_jax
from checkpoints import GOLDENS, changed, golden, logits_of, params_of, scenic_file
from models import video
from vivit_jax.checkpoints.parameters import paths
from vivit_jax.errors import UserError

HUGGING_FACE = ["hf_vivit", "hf_timesformer_divided_space_time"]
SCENIC = {
    "spacetime_tubelet_token": dict(num_frames=8),
    "spacetime_uniform_gap_prelogits": dict(num_frames=8, sampled_frames=4, attention="joint"),
    "fe_tubelet_token": {},
    "fsa_tubelet_gap_time_space": dict(num_frames=8, attention="factorized_self_attention_time_space"),
    "fdpa_tubelet_gap": dict(num_frames=8, attention="factorized_dot_product"),
}


@pytest.mark.parametrize("name", HUGGING_FACE)
def test_hugging_face_directories(name):
    values = golden(name)
    model = vivit_jax.load_model(GOLDENS / f"{name}_dir")
    np.testing.assert_allclose(logits_of(model, values["input"]), values["logits"], atol=1e-5)
    assert model.preprocessing.num_frames == 4 and model.preprocessing.mean[0] == (0.5 if name == "hf_vivit" else 0.45)


def test_what_transformers_saved_again_wins_over_what_we_kept(tmp_path):
    """As after fine-tuning there: its keys and weights are new, and ours still lie beside them."""
    sizes = dict(width=32, num_layers=2, num_heads=4, mlp_dim=64, image_size=32, patch_size=8, num_frames=4)
    model = vivit_jax.create_model("timesformer_b", 7, **sizes, stochastic_depth=0.1, position_resize="linear")
    vivit_jax.save_pretrained(model, tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights |= {f"classifier.{name}": weights[f"classifier.{name}"][:3] + 1.0 for name in ("weight", "bias")}
    save_file(weights, tmp_path / "model.safetensors")
    names = {"id2label": {"0": "a", "1": "b", "2": "c"}, "label2id": {"a": 0, "b": 1, "c": 2}}
    for file, edit in {
        "config.json": names | {"hidden_act": "gelu_new", "hidden_dropout_prob": 0.2},
        "preprocessor_config.json": {"image_mean": [0.1, 0.2, 0.3], "size": {"shortest_edge": 40}},
    }.items():
        path = tmp_path / file
        path.write_text(json.dumps(json.loads(path.read_text()) | edit))
    again = vivit_jax.load_model(tmp_path)
    changes = dict(num_classes=3, gelu="tanh", dropout=0.2)
    assert again.config == dataclasses.replace(model.config, **changes) and again.labels == ("a", "b", "c")
    fed = dataclasses.replace(model.preprocessing, mean=(0.1, 0.2, 0.3), resize=40)
    assert again.preprocessing == fed
    x = video(2, 4, 32, 32)
    features = vivit_jax.load_model(tmp_path, gelu="tanh").features(x)
    wanted = features @ weights["classifier.weight"].T + weights["classifier.bias"]
    np.testing.assert_allclose(again(x), wanted, atol=1e-5)


@pytest.mark.parametrize("layout", ["optimizer/target", "target/params", "params"])
@pytest.mark.parametrize("name", SCENIC)
def test_scenic_files(name, layout, tmp_path):
    values = golden(name)
    path = scenic_file(tmp_path / "checkpoint", params_of(values), layout, momentum=layout == "optimizer/target")
    model = vivit_jax.load_model(path, **SCENIC[name])
    np.testing.assert_allclose(logits_of(model, values["input"]), values["logits"], atol=1e-5)


def test_arrays_that_flax_wrote_in_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr("flax.serialization.MAX_CHUNK_SIZE", 512)  # bytes; a gigabyte otherwise
    values = golden("fe_tubelet_token")
    path = scenic_file(tmp_path / "checkpoint", params_of(values), "optimizer/target", momentum=True)
    assert b"__msgpack_chunked_array__" in path.read_bytes()
    np.testing.assert_allclose(logits_of(vivit_jax.load_model(path), values["input"]), values["logits"], atol=1e-5)


EPIC = {"verb": 97, "noun": 300}


@pytest.mark.parametrize("given", [{"noun": 4, "verb": 3}, None, EPIC])
def test_heads_that_stand_side_by_side_in_a_scenic_file(given, tmp_path):
    values = golden("fe_tubelet_token")
    params, heads = params_of(values), given or EPIC
    if heads == EPIC:  # recognized, in whichever order they are given; nouns are first in the file
        rng = np.random.default_rng(0)
        params["output_projection/kernel"] = rng.normal(size=(32, 397)).astype(np.float32)
        params["output_projection/bias"] = rng.normal(size=397).astype(np.float32)
    path = scenic_file(tmp_path / "checkpoint", params, "optimizer/target")
    model = vivit_jax.load_model(path, **({"num_classes": given} if given else {}))
    logits = logits_of(model, values["input"])
    assert {name: x.shape[1] for name, x in logits.items()} == heads
    joined = np.concatenate([logits["noun"], logits["verb"]], axis=1)
    if heads != EPIC:
        np.testing.assert_allclose(joined, values["logits"], atol=1e-5)
    else:
        wanted = values["pre_logits"] @ params["output_projection/kernel"] + params["output_projection/bias"]
        np.testing.assert_allclose(joined, wanted, atol=1e-3)


def test_what_a_scenic_file_leaves_open_is_said(tmp_path):
    params = params_of(golden("fdpa_tubelet_gap"))
    path = scenic_file(tmp_path / "checkpoint", params, "params")
    with pytest.warns(UserWarning) as warnings:
        model = vivit_jax.load_model(path)
    second, first = sorted(str(warning.message) for warning in warnings)
    assert "could be of 1 x 8 x 8, 4 x 4 x 4, 16 x 2 x 2, 64 x 1 x 1 tokens; taken as 4 x 4 x 4" in second
    assert "does not tell attention='factorized_dot_product' from 'joint'" in first
    assert model.config.grid == (4, 4, 4) and model.config.attention == "factorized_dot_product"
    name = "Transformer/posembed_input/pos_embedding"
    path = scenic_file(tmp_path / "larger", params | {name: np.tile(params[name], (1, 4, 1))}, "params")
    with pytest.raises(UserError, match=r"4 x 8 x 8, 16 x 4 x 4, .*give num_frames or image_size"):
        vivit_jax.load_model(path)
    assert vivit_jax.load_model(path, num_frames=32, attention="joint").config.grid == (16, 4, 4)


def test_the_published_grid_is_kept_where_another_is_wanted(tmp_path):
    """Of 3,136 positions, which could be of 8 frames of 448 pixels as well; those of two frames and 56 pixels are of a
    model that is wanted, not of the file."""
    params = params_of(golden("spacetime_tubelet_token"))
    name = "Transformer/posembed_input/pos_embedding"
    table = np.random.default_rng(0).normal(size=(1, 1 + 16 * 14 * 14, params[name].shape[-1])).astype(np.float32)
    path = scenic_file(tmp_path / "checkpoint", params | {name: table}, "optimizer/target")
    side = vivit_jax.load_model(path).config.image_size[0]
    assert vivit_jax.load_model(path).config.grid == (16, 14, 14)
    for fields in (dict(num_frames=8), dict(num_frames=2), dict(num_frames=128), dict(image_size=2 * side)):
        ours = paths(vivit_jax.load_model(path, **fields))["encoder/positions/space"]
        grid = (fields.get("num_frames", 32) // 2, *[fields.get("image_size", side) * 14 // side] * 2)
        assert ours.shape[:3] == grid
        whole = table[0, 1:].reshape(16, 14, 14, -1)
        np.testing.assert_allclose(ours[0, 0, 0], whole[0, 0, 0], atol=1e-5)  # zooming is aligned at the corners
        np.testing.assert_allclose(ours[-1, -1, -1] if grid[0] > 1 else ours[0, -1, -1],
                                   whole[-1 if grid[0] > 1 else 0, -1, -1], atol=1e-5)  # fmt: skip
    both = vivit_jax.load_model(path, num_frames=8, image_size=2 * side)
    np.testing.assert_array_equal(paths(both)["encoder/positions/space"], table[0, 1:].reshape(4, 28, 28, -1))


@pytest.mark.parametrize("wrap", ["released", "state_dict", "bare"])
@pytest.mark.parametrize("name", ["fb_timesformer_divided_space_time", "fb_timesformer_space_only"])
def test_timesformer_files(name, wrap, tmp_path):
    torch = pytest.importorskip("torch", reason="reading .pyth needs the extra `torch`")
    values = golden(name)
    params = {key: torch.tensor(x) for key, x in params_of(values).items()}
    cfg = "TIMESFORMER:\n  ATTENTION_TYPE: divided_space_time\nDATA:\n  NUM_FRAMES: 4\nMODEL:\n  NUM_CLASSES: 5\n"
    cfg = cfg.replace(
        "DATA:\n", "DATA:\n  MEAN: [0.5, 0.4, 0.3]\n  STD: [0.2, 0.25, 0.3]\n  REVERSE_INPUT_CHANNEL: true\n"
    )
    cfg += "1: {2: 3}\n"  # what is not the release's does not matter
    content = {
        "released": {
            "epoch": 14,
            "model_state": {f"model.{k}": x for k, x in params.items()},
            "cfg": cfg,
            "optimizer_state": {},
        },
        "state_dict": {"state_dict": {f"module.{k}": x for k, x in params.items()}},
        "bare": params,
    }[wrap]
    torch.save(content, tmp_path / "model.pyth")
    model = vivit_jax.load_model(tmp_path / "model.pyth", num_heads=4, num_frames=4)
    fed = ((0.5, 0.4, 0.3), (0.2, 0.25, 0.3)) if wrap == "released" else ((0.45,) * 3, (0.225,) * 3)
    assert (model.preprocessing.mean, model.preprocessing.std) == fed
    assert model.preprocessing.channel_order == ("BGR" if wrap == "released" else "RGB")
    np.testing.assert_allclose(logits_of(model, values["input"]), values["logits"], atol=1e-5)


def test_image_vit_is_a_video_model_of_one_frame():
    model = vivit_jax.load_model(GOLDENS / "vit_npz_flat_vision_transformer_names.npz")
    assert model.config.grid == (1, 4, 4) and model.config.num_classes == 11 and model.config.representation_size == 32
    assert np.isfinite(model(video(2, 1, 32, 32))).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_files(dtype, tmp_path):
    def change(tensors):
        tensors.update({key: x.astype(jnp.dtype(dtype)) for key, x in tensors.items()})

    values, model = golden("hf_vivit"), vivit_jax.load_model(changed(tmp_path, change))
    assert all(x.dtype == jnp.float32 for x in paths(model).values())
    np.testing.assert_allclose(logits_of(model, values["input"]), values["logits"], atol=0.1)
