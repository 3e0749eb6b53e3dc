"""Video models that start from an image ViT, or from another video model."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import originals
import runs
import vivit_jax
from models import TINY, randomize
from vivit_jax.architecture import Preprocessing
from vivit_jax.checkpoints import scenic
from vivit_jax.checkpoints.conversion import Checkpoint
from vivit_jax.checkpoints.initialize import KEEP, initial_params
from vivit_jax.checkpoints.parameters import filled, paths
from vivit_jax.data.augment import normalize
from vivit_jax.errors import UserError
from vivit_jax.training import loop
from vivit_jax.training.run import open_run

GOLDENS = Path(__file__).parent / "goldens"
SIZES = dict(image_size=32, patch_size=8, width=32, num_heads=4, mlp_dim=64, num_frames=8, num_layers=2)
ORIGINALS = {
    "fe_token_resize_6to4": (
        "vivit_b16x2_fe",
        dict(temporal_layers=1, temporal_heads=2, temporal_mlp_dim=48, embedding_initializer="central_frame"),
        (*KEEP, "encoder/cls"),  # as released
    ),
    "fsa_gap_tile": (
        "vivit_b16x2_fsa",
        dict(attention="factorized_self_attention_time_space", embedding_initializer="central_frame"),
        KEEP,
    ),
    "spacetime_token_tile_average": ("vivit_b16x2", dict(embedding_initializer="inflation"), KEEP),
}


@pytest.mark.parametrize("name", ORIGINALS)
def test_as_the_original_does(name):
    values = dict(np.load(GOLDENS / f"init_from_vit_{name}.npz"))
    variant, fields, keep = ORIGINALS[name]

    def section(prefix):
        return {key.removeprefix(prefix): x for key, x in values.items() if key.startswith(prefix)}

    model = vivit_jax.create_model(variant, 7, **SIZES | fields)
    before, after = (originals.to_ours(section(f"target_{x}/"), model) for x in ("before", "after"))
    tensors = {key: lambda x=x: x for key, x in section("restored/").items()}
    config, image_kernel = scenic.infer("image", tensors, {"num_frames": 1})
    image = Checkpoint("image", config, model.preprocessing, None, scenic.rules(config, image_kernel), tensors)
    shapes = {path: x.shape for path, x in paths(model).items()}
    ours = before | initial_params(image, model.config, model.preprocessing, shapes, keep)
    for path, wanted in after.items():
        if "resize" in name and path.endswith("positions/space"):
            np.testing.assert_allclose(ours[path], wanted, atol=1e-6)
        else:
            np.testing.assert_array_equal(ours[path], wanted, err_msg=path)


@pytest.fixture(scope="module")
def image_vit(tmp_path_factory):
    """A random image ViT, as our one-frame model and as a directory."""
    fields = TINY | dict(num_frames=1, tubelet_size=1, attention="joint")
    model = randomize(vivit_jax.create_model("vivit_ti16x2", 11, **fields))
    directory = tmp_path_factory.mktemp("image_vit")
    vivit_jax.save_pretrained(model, directory)
    return model, str(directory)


def started(name, source, **fields):
    """A model, newly initialized, with what it takes over."""
    model = vivit_jax.create_model(name, 5, **TINY | dict(gelu="tanh") | fields)
    arrays = dict(paths(model))
    new = initial_params(source, model.config, model.preprocessing, {path: x.shape for path, x in arrays.items()})
    return filled(model, arrays | new), set(new)


def still(frames):
    picture = jax.random.normal(jax.random.key(2), (2, 1, 32, 32, 3))
    return picture, jnp.repeat(picture, frames, axis=1)


@pytest.mark.parametrize("how", ["central_frame", "inflation"])
def test_factorized_encoder_sees_each_step_of_a_still_clip_as_the_image(image_vit, how):
    image, source = image_vit
    model, _ = started("vivit_ti16x2_fe", source, temporal_layers=1, embedding_initializer=how)
    picture, clip = still(4)
    _, taps = model(clip, return_taps=True)
    steps = taps["encoder"]["output"].cls
    np.testing.assert_allclose(steps, np.repeat(image.features(picture)[:, None], 2, axis=1), atol=1e-5)


@pytest.mark.parametrize("name", ["timesformer_b", "timesformer_b_space"])
def test_timesformer_starts_as_the_image_model(image_vit, name):
    image, source = image_vit
    model, taken = started(name, source)
    picture, clip = still(4)
    np.testing.assert_allclose(model.features(clip), image.features(picture), atol=1e-5)
    if name == "timesformer_b":  # where it moves, each frame is still seen alone: the projections after time are zero
        frames = jax.random.normal(jax.random.key(4), (1, 4, 32, 32, 3))
        _, taps = model(frames, return_taps=True)
        _, alone = image(frames.reshape(4, 1, 32, 32, 3), return_taps=True)
        seen = taps["encoder"]["layers"].patches[0, 0]  # after the first layer, before CLS has mixed the frames
        np.testing.assert_allclose(seen, alone["encoder"]["layers"].patches[0, :, 0], atol=1e-5)
        time, space = (paths(model)[f"encoder/blocks/1/attention/{i}/query/kernel"] for i in (0, 1))
        np.testing.assert_array_equal(time, space)
        assert "encoder/blocks/0/attention/0/project/kernel" not in taken


OTHERS = ["vivit_ti16x2", "vivit_ti16x2_fsa", "vivit_ti16x2_fdpa", "timesformer_b_axial", "timesformer_b_time"]


@pytest.mark.parametrize("name", OTHERS)
def test_what_other_models_take_over(image_vit, name):
    image, source = image_vit
    model, taken = started(name, source, embedding_initializer="central_frame")
    new = set(paths(model)) - taken
    for path in new:
        assert (
            path.startswith("heads/") or "/project/" in path or "positions/time" in path or "attention/1/norm" in path
        ), path
    tables = paths(model)["encoder/positions/space"], paths(image)["encoder/positions/space"]
    np.testing.assert_array_equal(tables[0], np.broadcast_to(tables[1], tables[0].shape))  # tiled over time


def test_a_random_tubelet_kernel_stays(image_vit):
    _, taken = started("vivit_ti16x2", image_vit[1], embedding_initializer="random")
    assert "embedding/kernel" not in taken and "embedding/bias" in taken


def test_from_a_video_model_to_a_longer_and_larger_one(tmp_path):
    source = randomize(vivit_jax.create_model("timesformer_b", 5, **TINY))
    vivit_jax.save_pretrained(source, tmp_path)
    model, taken = started("timesformer_b", str(tmp_path), num_frames=8, image_size=(48, 32))
    assert set(paths(model)) - taken == {"heads/head/kernel", "heads/head/bias"}
    table, old = paths(model)["encoder/positions/time"], paths(source)["encoder/positions/time"]
    assert table.shape[0] == 8
    np.testing.assert_allclose(table[jnp.array([0, 7])], old[jnp.array([0, 3])], atol=1e-6)  # corners stay
    np.testing.assert_array_equal(
        paths(model)["encoder/blocks/1/attention/0/project/kernel"],
        paths(source)["encoder/blocks/1/attention/0/project/kernel"],
    )


@pytest.mark.parametrize(
    "theirs, ours",
    [
        (dict(attention="joint"), dict(attention="joint", positions="joint")),
        (dict(pool="mean"), dict(pool="mean", attention="factorized_self_attention_time_space")),
        (dict(pool="mean"), dict(pool="mean", positions="joint")),
    ],
    ids=["a table of both", "no projection", "a table of both, with one"],
)
def test_what_has_no_place_is_put_into_what_has(theirs, ours, tmp_path):
    """The same model written otherwise: nothing that was learned is left behind."""
    source = randomize(vivit_jax.create_model("timesformer_b", 5, **TINY | theirs))
    vivit_jax.save_pretrained(source, tmp_path)
    model, _ = started("timesformer_b", str(tmp_path), gelu="exact", **ours)
    clip = jax.random.normal(jax.random.key(0), (2, 4, 32, 32, 3))
    np.testing.assert_allclose(model.features(clip), source.features(clip), atol=1e-5)


def test_a_video_model_that_was_fed_otherwise_sees_the_same(tmp_path):
    source = randomize(vivit_jax.create_model("timesformer_b", 5, **TINY))
    other = Preprocessing(4, 8.0, (32, 32), (0.2, 0.4, 0.5), (0.1, 0.3, 0.25), "BGR")
    source.preprocessing = other
    vivit_jax.save_pretrained(source, tmp_path)
    model, _ = started("timesformer_b", str(tmp_path), gelu="exact")
    pixels = jax.random.randint(jax.random.key(0), (2, 4, 32, 32, 3), 0, 256).astype(jnp.uint8)
    assert model.preprocessing != other
    seen, wanted = (m.features(normalize(pixels, m.preprocessing)) for m in (model, source))
    np.testing.assert_allclose(seen, wanted, atol=1e-4)


@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(num_layers=3), "config.model.num_layers: 3, but .* has 2"),
        (dict(width=48), r"does not fit the model: .*encoder/cls \[1, 24\] for \[1, 48\]"),
        (dict(patch_size=16), r"embedding/kernel \[1, 8, 8, 3, 24\] for \[1, 16, 16, 3, 24\]"),
    ],
)
def test_what_does_not_fit_is_an_error(image_vit, fields, message):
    with pytest.raises(UserError, match=message):
        started("timesformer_b", image_vit[1], **fields)


def test_a_run_starts_from_it_once(data_dir, tmp_path, capsys):
    config = runs.config(data_dir)
    image = vivit_jax.create_model(
        "vivit_ti16x2", 3, **dict(config.model.overrides, num_frames=1, tubelet_size=1, temporal_layers=0)
    )
    vivit_jax.save_pretrained(randomize(image), tmp_path / "image")
    options = dict(init_from=str(tmp_path / "image"), model__embedding_initializer="central_frame", train__epochs=1.0)
    config = runs.config(data_dir, **options, train__ema=0.9)
    state = open_run(config, tmp_path / "run").new_state()
    ours, theirs = paths(state["params"]), paths(randomize(image))
    np.testing.assert_array_equal(ours["encoder/blocks/1/mlp/up/kernel"], theirs["encoder/blocks/1/mlp/up/kernel"])
    np.testing.assert_array_equal(paths(state["ema"])["encoder/cls"], theirs["encoder/cls"])
    loop.train(config, tmp_path / "run")
    assert "parameters start from" in capsys.readouterr().out
    (tmp_path / "image" / "config.json").unlink()  # a run that has begun does not need it any more
    assert open_run(config, tmp_path / "run").weights == {}


def test_a_source_that_is_not_there_leaves_no_workdir(data_dir, tmp_path):
    flags = (f"--config.init_from={tmp_path / 'nothing'}",)
    done = runs.run(runs.command(data_dir, tmp_path / "run", *flags))
    assert "nothing: is no file, no directory, and no id" in runs.error_line(done)
    assert not (tmp_path / "run").exists()
