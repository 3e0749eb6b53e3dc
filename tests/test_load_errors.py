"""A checkpoint is loaded whole, or not at all, with one clear error; nothing in it is run."""

import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import vivit_jax
from checkpoints import GOLDENS, changed, golden, logits_of, params_of, scenic_file
from models import make, video
from vivit_jax.checkpoints.parameters import paths
from vivit_jax.errors import UserError


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
        (dict(num_classes={"a": 3, "b": 2}), "model.num_classes: {'a': 3, 'b': 2}, but the head of .* has 5; leave"),
        (dict(patch_size=(16, 16, 2)), r"model.patch_size: \(16, 16, 2\) is not two numbers"),
        (dict(image_size=(32,)), r"model.image_size: \(32,\) is not two numbers"),
        (dict(widht=1), "model.widht: no such field; did you mean 'width'"),
        (dict(image_size=30), "model.image_size: height 30"),
    ):
        with pytest.raises(ValueError, match=message):
            vivit_jax.load_model(tmp_path, **fields)


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
    ignore = ("vivit.extra", "classifier.bias", "encoder/norm/scale", "encoder/blocks/1/attention/0/key/bias")
    model = vivit_jax.load_model(tmp_path / "model", ignore=ignore)
    np.testing.assert_array_equal(paths(model)["encoder/norm/scale"], 1)


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


def npz(path, change):
    """An image ViT's file; `change` is made to its arrays."""
    arrays = dict(np.load(GOLDENS / "vit_npz_flat_vision_transformer_names.npz"))
    change(arrays)
    np.savez(path, **arrays)
    return path


def without(tensors, part):
    for name in [name for name in tensors if part in name]:
        del tensors[name]


def flipped(path):
    content = bytearray(path.read_bytes())
    for at in range(len(content) // 4, 3 * len(content) // 4, 1000):
        content[at] ^= 0xFF
    return write(path, content)


def spatial_alone(path):
    params = params_of(golden("fe_tubelet_token"))
    without(params, "TemporalTransformer")
    return scenic_file(path, params, "params")


def pyth(path):
    torch = pytest.importorskip("torch", reason="reading .pyth needs the extra `torch`")
    tensors = {key: torch.tensor(x) for key, x in params_of(golden("fb_timesformer_space_only")).items()}
    without(tensors, "mlp.fc1")
    torch.save({"model_state": tensors, "cfg": "MODEL:\n  NUM_HEADS: 4\n"}, path)
    return path


DAMAGED = {
    "bits are flipped": (lambda tmp: flipped(npz(tmp / "a.npz", dict.copy)), "a.npz: .*Bad CRC-32 for file"),
    "no blocks": (
        lambda tmp: npz(tmp / "a.npz", lambda arrays: without(arrays, "encoderblock")),
        r"a.npz: .*\(no Transformer/encoderblock_0/\*/query/kernel\)",
    ),
    "no temporal encoder": (lambda tmp: spatial_alone(tmp / "fe"), r"fe: .*\(no TemporalTransformer/.*\)"),
    "no MLP": (lambda tmp: pyth(tmp / "a.pyth"), r"a.pyth: .*\(no blocks.0.mlp.fc1.weight\)"),
    "nested deep": (lambda tmp: write(tmp / "deep", b"\x81\xa1a" * 5000 + b"\x01"), "deep: .*recursion depth"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_and_incomplete_files_are_one_clear_error(kind, tmp_path):
    make_file, message = DAMAGED[kind]
    with pytest.raises(UserError, match=message) as error:
        vivit_jax.load_model(make_file(tmp_path))
    assert "is damaged or incomplete" in str(error.value) and "\n" not in str(error.value)


def test_code_in_a_pickle_is_not_run(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch", reason="reading .pyth needs the extra `torch`")
    monkeypatch.chdir(tmp_path)
    torch.save({"model_state": {}, "cfg": Code()}, tmp_path / "new.pyth")
    write(tmp_path / "old.pyth", pickle.dumps({"model_state": Code()}, protocol=2))
    for name in ("new.pyth", "old.pyth"):
        with pytest.raises(UserError, match=f"{name}: cannot be read safely"):
            vivit_jax.load_model(tmp_path / name)
    assert not (tmp_path / "was_run").exists()
