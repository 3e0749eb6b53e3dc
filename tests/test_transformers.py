"""Beside transformers itself, at full size. Needs torch and transformers; without them it is skipped, and says so.

pip install -e ".[test,torch]" "transformers>=5" && pytest tests/test_transformers.py
"""

import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file

import vivit_jax
from vivit_jax.checkpoints.initialize import initial_params
from vivit_jax.checkpoints.parameters import paths

torch = pytest.importorskip("torch", reason="needs torch")
transformers = pytest.importorskip("transformers", reason="needs transformers")

MODELS = {
    "vivit": (transformers.VivitConfig, transformers.VivitForVideoClassification, (1, 32, 224, 224, 3)),
    "timesformer": (
        transformers.TimesformerConfig,
        transformers.TimesformerForVideoClassification,
        (1, 8, 224, 224, 3),
    ),
}


def theirs(model, video):
    with torch.no_grad():
        return model(torch.tensor(video.transpose(0, 1, 4, 2, 3))).logits.numpy()


@pytest.mark.parametrize("name", MODELS)
def test_import_and_export_at_full_size(name, tmp_path):
    configuration, kind, shape = MODELS[name]
    torch.manual_seed(0)
    original = kind(configuration(num_labels=400)).eval()
    with torch.no_grad():  # what is initialized to zero would hide mistakes
        for parameter in original.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    original.save_pretrained(tmp_path / "original")
    video = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    wanted = theirs(original, video)
    ours = vivit_jax.load_model(tmp_path / "original")
    np.testing.assert_allclose(nnx.jit(lambda model, x: model(x))(ours, video), wanted, atol=1e-4)
    vivit_jax.save_pretrained(ours, tmp_path / "ours")
    again = kind.from_pretrained(tmp_path / "ours").eval()
    np.testing.assert_allclose(theirs(again, video), wanted, atol=1e-5)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "ours")
    np.testing.assert_allclose(processor.image_mean, ours.preprocessing.mean)


def test_the_classes_of_transformers_read_our_random_models(tmp_path):
    """Ours first: what we initialize, they compute alike."""
    model = vivit_jax.create_model("timesformer_b", 7, num_layers=2, num_frames=4, image_size=64)
    vivit_jax.save_pretrained(model, tmp_path)
    again = transformers.TimesformerForVideoClassification.from_pretrained(tmp_path).eval()
    video = np.random.default_rng(1).normal(size=(2, 4, 64, 64, 3)).astype(np.float32)
    np.testing.assert_allclose(model(video), theirs(again, video), atol=1e-5)
    assert len(paths(model)) > 0


def test_transformers_gives_our_model_another_head_and_we_read_it_back(tmp_path):
    model = vivit_jax.create_model("vivit_b16x2", 7, num_layers=2, num_frames=4, image_size=64, stochastic_depth=0.1)
    vivit_jax.save_pretrained(model, tmp_path / "ours")
    other = transformers.VivitForVideoClassification.from_pretrained(
        tmp_path / "ours", num_labels=3, ignore_mismatched_sizes=True
    ).eval()
    other.save_pretrained(tmp_path / "theirs")
    again = vivit_jax.load_model(tmp_path / "theirs")
    assert again.config.num_classes == 3 and again.config.stochastic_depth == 0.1
    video = np.random.default_rng(1).normal(size=(2, 4, 64, 64, 3)).astype(np.float32)
    np.testing.assert_allclose(again(video), theirs(other, video), atol=1e-5)


@pytest.mark.parametrize("kind", ["ViTForImageClassification", "ViTModel", "DeiTModel"])
def test_image_models_of_transformers_initialize_ours(kind, tmp_path):
    family = kind.split("For")[0].removesuffix("Model")
    small = dict(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, image_size=32, patch_size=8
    )
    config = getattr(transformers, f"{family}Config")(**small)
    torch.manual_seed(0)
    original = getattr(transformers, kind)(config).eval()
    original.save_pretrained(tmp_path)
    sizes = dict(width=32, num_layers=2, num_heads=4, mlp_dim=64, image_size=32, patch_size=8, num_frames=4)
    model = vivit_jax.create_model("timesformer_b", 5, **sizes)
    shapes = {path: x.shape for path, x in paths(model).items()}
    new = initial_params(tmp_path, model.config, model.preprocessing, shapes)
    weights = load_file(tmp_path / "model.safetensors")
    name = next(key for key in weights if key.endswith("layer.1.intermediate.dense.weight"))
    np.testing.assert_array_equal(new["encoder/blocks/1/mlp/up/kernel"], weights[name].T)
    if family == "DeiT":
        with pytest.raises(ValueError, match="distillation token"):
            vivit_jax.load_model(tmp_path)
    elif kind == "ViTForImageClassification":
        image = np.random.default_rng(0).normal(size=(1, 1, 32, 32, 3)).astype(np.float32)
        with torch.no_grad():
            wanted = original(torch.tensor(image[:, 0].transpose(0, 3, 1, 2))).logits.numpy()
        np.testing.assert_allclose(vivit_jax.load_model(tmp_path)(image), wanted, atol=1e-5)
