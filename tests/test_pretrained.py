"""Checkpoints of every format in and out, whole or with one clear error."""

import json
import pickle
import re
import shutil
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from flax.serialization import msgpack_serialize
from flax.traverse_util import unflatten_dict

import runs
import vivit_jax
from models import ALL, make, video
from vivit_jax.checkpoints.pretrained import paths
from vivit_jax.errors import UserError
from vivit_jax.training import loop

GOLDENS = Path(__file__).parent / "goldens"
HUGGING_FACE = ["hf_vivit", "hf_timesformer_divided_space_time"]
SCENIC = {
    "spacetime_tubelet_token": dict(num_frames=8),
    "spacetime_uniform_gap_prelogits": dict(num_frames=8, sampled_frames=4, attention="joint"),
    "fe_tubelet_token": {},
    "fsa_tubelet_gap_time_space": dict(num_frames=8, attention="factorized_self_attention_time_space"),
    "fdpa_tubelet_gap": dict(num_frames=8, attention="factorized_dot_product"),
}


def golden(name):
    return dict(np.load(GOLDENS / f"{name}.npz"))


def params_of(values):
    return {name.removeprefix("param/"): x for name, x in values.items() if name.startswith("param/")}


def logits_of(model, x):
    x = jnp.asarray(x if x.shape[-1] == 3 else x.transpose(0, 1, 3, 4, 2))
    return nnx.jit(lambda model, x: model(x))(model, x)


def same(a, b):
    a, b = paths(a), paths(b)
    assert a.keys() == b.keys()
    for path in a:
        np.testing.assert_array_equal(a[path], b[path], err_msg=path)


@pytest.mark.parametrize("name", HUGGING_FACE)
def test_hugging_face_directories(name):
    values = golden(name)
    model = vivit_jax.load_model(GOLDENS / f"{name}_dir")
    np.testing.assert_allclose(logits_of(model, values["input"]), values["logits"], atol=1e-5)
    assert model.preprocessing.num_frames == 4 and model.preprocessing.mean[0] == (0.5 if name == "hf_vivit" else 0.45)


def scenic_file(path, params, layout, momentum=False):
    tree = unflatten_dict(params, sep="/")
    for key in reversed(layout.split("/")):
        tree = {key: tree} | (
            {"state": {"step": 7, "param_states": unflatten_dict(params, sep="/")}} if momentum else {}
        )
        momentum = False
    path.write_bytes(msgpack_serialize({"global_step": 3, **tree, "rng": np.arange(2, dtype=np.uint32)}))
    return path


@pytest.mark.parametrize("layout", ["optimizer/target", "target/params", "params"])
@pytest.mark.parametrize("name", SCENIC)
def test_scenic_files(name, layout, tmp_path):
    values = golden(name)
    path = scenic_file(tmp_path / "checkpoint", params_of(values), layout, momentum=layout == "optimizer/target")
    model = vivit_jax.load_model(path, **SCENIC[name])
    np.testing.assert_allclose(logits_of(model, values["input"]), values["logits"], atol=1e-5)


@pytest.mark.parametrize("given", [{"noun": 4, "verb": 3}, None])
def test_heads_that_stand_side_by_side_in_a_scenic_file(given, tmp_path):
    values = golden("fe_tubelet_token")
    params, heads = params_of(values), given or {"noun": 300, "verb": 97}
    if given is None:  # Epic-Kitchens', which are recognized
        rng = np.random.default_rng(0)
        params["output_projection/kernel"] = rng.normal(size=(32, 397)).astype(np.float32)
        params["output_projection/bias"] = rng.normal(size=397).astype(np.float32)
    path = scenic_file(tmp_path / "checkpoint", params, "optimizer/target")
    model = vivit_jax.load_model(path, **({"num_classes": given} if given else {}))
    logits = logits_of(model, values["input"])
    assert {name: x.shape[1] for name, x in logits.items()} == heads
    joined = np.concatenate([logits["noun"], logits["verb"]], axis=1)
    if given:
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


@pytest.mark.parametrize("wrap", ["released", "state_dict", "bare"])
@pytest.mark.parametrize("name", ["fb_timesformer_divided_space_time", "fb_timesformer_space_only"])
def test_timesformer_files(name, wrap, tmp_path):
    torch = pytest.importorskip("torch", reason="reading .pyth needs the extra `torch`")
    values = golden(name)
    params = {key: torch.tensor(x) for key, x in params_of(values).items()}
    cfg = "TIMESFORMER:\n  ATTENTION_TYPE: divided_space_time\nDATA:\n  NUM_FRAMES: 4\nMODEL:\n  NUM_CLASSES: 5\n"
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
    np.testing.assert_allclose(logits_of(model, values["input"]), values["logits"], atol=1e-5)


def test_image_vit_is_a_video_model_of_one_frame():
    model = vivit_jax.load_model(GOLDENS / "vit_npz_flat_vision_transformer_names.npz")
    assert model.config.grid == (1, 4, 4) and model.config.num_classes == 11 and model.config.representation_size == 32
    assert np.isfinite(model(video(2, 1, 32, 32))).all()


@pytest.mark.parametrize("case", ALL)
def test_saved_models_come_back_exactly(case, tmp_path):
    model = make(case, scan=True, stochastic_depth=0.2)
    model.labels = ("a", "b", "c", "d", "e")
    vivit_jax.save_pretrained(model, tmp_path)
    again = vivit_jax.load_model(tmp_path)
    same(model, again)
    assert (again.config, again.preprocessing, again.labels) == (model.config, model.preprocessing, model.labels)
    theirs = {"vivit_ti16x2": "vivit", "timesformer_b": "timesformer", "timesformer_b_joint": "timesformer"}
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == theirs.get(case, "vivit_jax")
    assert sorted(x.name for x in tmp_path.iterdir()) == [
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]


@pytest.mark.parametrize("case", ["vivit_ti16x2", "timesformer_b", "timesformer_b_joint"])
def test_what_transformers_reads_says_everything(case, tmp_path):
    """Without what we keep beside it for ourselves."""
    model = make(case)
    vivit_jax.save_pretrained(model, tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    del values["vivit_jax"]
    (tmp_path / "config.json").write_text(json.dumps(values))
    again = vivit_jax.load_model(tmp_path)
    same(model, again)
    np.testing.assert_allclose(again.preprocessing.mean, model.preprocessing.mean, atol=1e-6)
    np.testing.assert_allclose(logits_of(again, video()), logits_of(model, video()), atol=1e-6)


def test_several_heads_come_back(tmp_path):
    model = make("vivit_ti16x2_fe", {"verb": 7, "noun": 3})
    vivit_jax.save_pretrained(model, tmp_path)
    same(model, vivit_jax.load_model(tmp_path))


def test_overrides(tmp_path):
    model = make("timesformer_b")
    vivit_jax.save_pretrained(model, tmp_path)
    x = video(1, 8, 48, 32)
    larger = vivit_jax.load_model(tmp_path, num_frames=8, image_size=(48, 32), dropout=0.5)
    assert larger.config.grid == (8, 6, 4) and larger.config.dropout == 0.5
    np.testing.assert_allclose(logits_of(larger, x), logits_of(model, x), atol=1e-5)
    head = vivit_jax.load_model(tmp_path, num_classes=9, ignore=("head",), seed=3)
    assert head(x).shape == (1, 9) and paths(head)["heads/head/kernel"].std() > 0
    for fields, message in (
        (dict(num_layers=1), "model.num_layers: 1, but .* has 2, which is fixed"),
        (dict(num_classes=9), "model.num_classes: 9, but the head of .* has 5"),
        (dict(widht=1), "model.widht: no such field; did you mean 'width'"),
        (dict(image_size=30), "model.image_size: height 30"),
    ):
        with pytest.raises(ValueError, match=message):
            vivit_jax.load_model(tmp_path, **fields)


def changed(tmp_path, change):
    from safetensors.numpy import load_file, save_file

    directory = tmp_path / "model"
    shutil.copytree(GOLDENS / "hf_vivit_dir", directory)
    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors")
    return directory


def test_everything_that_does_not_fit_is_listed_at_once(tmp_path):
    def change(tensors):
        del tensors["vivit.layernorm.weight"], tensors["vivit.encoder.layer.1.attention.attention.key.bias"]
        tensors["vivit.extra"] = np.zeros(3, np.float32)
        tensors["classifier.bias"] = np.zeros(7, np.float32)

    with pytest.raises(UserError) as error:
        vivit_jax.load_model(changed(tmp_path, change))
    message = str(error.value)
    assert (
        "missing" in message
        and "vivit.layernorm.weight" in message
        and "layer.1.attention.attention.key.bias" in message
    )
    assert "unexpected vivit.extra" in message and "of another shape classifier.bias [7] for [5]" in message
    assert "\n" not in message
    ignore = ("vivit.extra", "classifier.bias", "encoder/norm/scale", "encoder/blocks/1/attention/0/qkv_bias")
    model = vivit_jax.load_model(tmp_path / "model", ignore=ignore)
    np.testing.assert_array_equal(paths(model)["encoder/norm/scale"], 1)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_files(dtype, tmp_path):
    def change(tensors):
        tensors.update({key: x.astype(jnp.dtype(dtype)) for key, x in tensors.items()})

    values, model = golden("hf_vivit"), vivit_jax.load_model(changed(tmp_path, change))
    assert all(x.dtype == jnp.float32 for x in paths(model).values())
    np.testing.assert_allclose(logits_of(model, values["input"]), values["logits"], atol=0.1)


def write(path, content):
    path.write_bytes(content)
    return path


class Code:
    def __reduce__(self):
        return (Path.touch, (Path("was_run"),))


def truncated(directory, tmp_path):
    target = tmp_path / "truncated"
    shutil.copytree(directory, target)
    whole = (target / "model.safetensors").read_bytes()
    (target / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    return target


def of_type(directory, tmp_path):
    target = tmp_path / "other"
    shutil.copytree(directory, target)
    (target / "config.json").write_text('{"model_type": "bert"}')
    return target


@pytest.mark.parametrize(
    "source, message",
    [
        (lambda tmp: truncated(GOLDENS / "hf_vivit_dir", tmp), "model.safetensors: is not a whole safetensors file"),
        (
            lambda tmp: of_type(GOLDENS / "hf_vivit_dir", tmp),
            "config.json: model_type 'bert' is none of vivit_jax, timesformer",
        ),
        (
            lambda tmp: write(tmp / "notes.txt", b"weights are elsewhere\n"),
            "notes.txt: is not a flax msgpack checkpoint",
        ),
        (lambda tmp: write(tmp / "empty", b""), "empty: is an empty file"),
        (lambda tmp: write(tmp / "a.npz", b"PK\x03\x04 cut"), "a.npz: is not a whole .npz file"),
        (lambda tmp: tmp / "nothing", "nothing: is no file, no directory, and no id"),
        (lambda tmp: tmp, "has no config.json; it is neither"),
    ],
)
def test_bad_sources_are_one_clear_error(source, message, tmp_path):
    with pytest.raises(UserError, match=re.escape(message).replace("\\ ", " ")) as error:
        vivit_jax.load_model(source(tmp_path))
    assert "\n" not in str(error.value)


def test_truncated_scenic_file(tmp_path):
    path = scenic_file(tmp_path / "checkpoint", params_of(golden("fe_tubelet_token")), "optimizer/target")
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(UserError, match="cut short"):
        vivit_jax.load_model(path)


def test_code_in_a_pickle_is_not_run(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch", reason="reading .pyth needs the extra `torch`")
    monkeypatch.chdir(tmp_path)
    torch.save({"model_state": {}, "cfg": Code()}, tmp_path / "new.pyth")
    write(tmp_path / "old.pyth", pickle.dumps({"model_state": Code()}, protocol=2))
    for name in ("new.pyth", "old.pyth"):
        with pytest.raises(UserError, match=f"{name}: cannot be read safely"):
            vivit_jax.load_model(tmp_path / name)
    assert not (tmp_path / "was_run").exists()


def test_a_workdir_gives_what_it_would_evaluate(data_dir, tmp_path):
    config = runs.config(data_dir, train__epochs=2.0, train__ema=0.5, train__checkpoint_every=2, train__keep=5)
    loop.train(config, tmp_path)
    latest, first = vivit_jax.load_model(tmp_path), vivit_jax.load_model(tmp_path, step=2)
    assert latest.labels is not None and len(latest.labels) == latest.config.num_classes
    assert np.abs(logits_of(latest, video()) - logits_of(first, video())).max() > 1e-6
    same(vivit_jax.load_model(tmp_path, step="best"), latest)  # the only one that was evaluated
    with pytest.raises(UserError, match="no checkpoint of step 3; its steps are 2, 4"):
        vivit_jax.load_model(tmp_path, step=3)
    vivit_jax.save_pretrained(latest, tmp_path / "exported")
    same(vivit_jax.load_model(tmp_path / "exported"), latest)


def test_the_command_line_converts(tmp_path):
    script = [sys.executable, "scripts/convert_checkpoint.py"]
    done = runs.run([*script, str(GOLDENS / "hf_vivit_dir"), str(tmp_path / "out"), "--field=num_frames=8"])
    assert done.stdout.strip().endswith("joint, 5 classes, 8 frames"), done.stderr
    assert vivit_jax.load_model(tmp_path / "out").config.num_frames == 8
    done = runs.run([*script, str(tmp_path / "nothing"), str(tmp_path / "other")])
    assert "is no file, no directory" in runs.error_line(done) and not (tmp_path / "other").exists()
    assert "SOURCE and TARGET" in runs.error_line(runs.run([*script, str(tmp_path / "out")]))
