"""The shared core: schemes against their definition, scan and remat, sizes, regularization, errors."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import naive
import vivit_jax
from vivit_jax.models.attention import SCHEMES, Tokens, dropout

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


def video(batch=2, frames=4, height=32, width=32, seed=1):
    return jax.random.normal(jax.random.key(seed), (batch, frames, height, width, 3))


@pytest.mark.parametrize("case", ALL)
def test_block_is_its_definition(case):
    model = make(case, num_layers=1, tubelet_size=1)
    (block,), scheme = model.encoder.blocks, SCHEMES[model.config.attention]
    grid = (1, 4, 6) if scheme.per_frame else (4, 4, 6)
    patches, cls = np.split(
        np.random.default_rng(0).normal(size=(2, math.prod(grid) + 1, 24)).astype(np.float32), [-1], 1
    )
    patches, cls = patches.reshape(2, *grid, 24), cls if model.encoder.cls is not None else None
    ours, _ = jax.jit(lambda x: block(x, None, None))(
        Tokens(jnp.asarray(patches), None if cls is None else jnp.asarray(cls))
    )
    for i in range(2):
        options = dict(cls_in_time=model.config.cls_in_time, exact_gelu=model.config.gelu == "exact")
        tokens, wanted_cls = naive.block(
            block, model.config.attention, patches[i], None if cls is None else cls[i, 0], **options
        )
        np.testing.assert_allclose(ours.patches[i], tokens, atol=1e-5)
        if cls is not None:
            np.testing.assert_allclose(ours.cls[i, 0], wanted_cls, atol=1e-5)


@pytest.mark.parametrize("case", [case for case in ALL if case != "CLS in time"])
def test_reach(case):
    """In one block a token's gradient reaches what its scheme's steps chain together, and no more."""
    name, fields = ALL[case]
    fields = fields | dict(num_layers=1, pool="mean", positions="joint")
    fields |= dict(temporal_layers=1) if "temporal_layers" in fields else {}
    model = make_one_block(name, fields)
    encoder, (t, h, w) = model.encoder, (4, 4, 4)
    scheme = SCHEMES[model.config.attention]
    x = jax.random.normal(jax.random.key(3), (1, t, h, w, 24))
    shape = (t, 1, h, w, 24) if scheme.per_frame else x.shape
    chosen = (2, 1, 3)

    def one_token(x):
        tokens, _ = encoder(x.reshape(shape), None, False)
        return jnp.sin(tokens.patches.reshape(t, h, w, 24)[chosen]).sum()

    reached = np.abs(jax.jit(jax.grad(one_token))(x)[0]).sum(-1) > 1e-9
    wanted, index = np.eye(t * h * w, dtype=bool), np.ravel_multi_index(chosen, (t, h, w))
    for step in scheme.steps:
        labels = [naive.groups_of(axes, t, h, w) for axes in step.axes]
        seen = np.any([label[:, None] == label[None] for label in labels], axis=0)
        wanted = wanted | seen if scheme.parallel else (seen.astype(int) @ wanted > 0)
    np.testing.assert_array_equal(reached, wanted[index].reshape(t, h, w))


def make_one_block(name, fields):
    return randomize(vivit_jax.create_model(name, 5, **TINY | fields | dict(tubelet_size=1)))


@pytest.mark.parametrize("case", ALL)
def test_scan_and_remat_change_nothing(case):
    def value_and_gradients(model):
        graph, state = nnx.split(model)
        return jax.jit(jax.value_and_grad(lambda state: jnp.sin(nnx.merge(graph, state)(video())).sum()))(state)

    value, gradients = value_and_gradients(make(case))
    for options in (
        dict(scan=True),
        dict(remat="full"),
        dict(remat="dots", scan=True),
        dict(remat="attention", scan=True),
    ):
        other_value, other_gradients = value_and_gradients(make(case, **options))
        np.testing.assert_allclose(value, other_value, rtol=1e-5)
        assert jax.tree.structure(gradients) == jax.tree.structure(other_gradients)  # one parameter tree for all
        for a, b in zip(jax.tree.leaves(gradients), jax.tree.leaves(other_gradients)):
            np.testing.assert_allclose(a, b, atol=1e-5 * max(1, float(jnp.abs(a).max())))


@pytest.mark.parametrize("case", ALL)
def test_regularization_is_for_training(case):
    x, key, plain = video(), jax.random.key(7), make(case)
    expected = nnx.jit(lambda model: model(x))(plain)
    for rate in ("dropout", "attention_dropout", "stochastic_depth"):
        graph, state = nnx.split(make(case, **{rate: 0.5}))
        call = jax.jit(lambda k, graph=graph, state=state: nnx.merge(graph, state)(x, key=k))
        np.testing.assert_allclose(call(None), expected, atol=1e-5)
        assert np.abs(call(key) - expected).max() > 1e-3, rate
        np.testing.assert_array_equal(call(key), call(key))
        assert np.abs(call(key) - call(jax.random.key(8))).max() > 1e-3, rate


@pytest.mark.parametrize("scan", [False, True])
def test_stochastic_depth_of_one_leaves_the_last_layer_out(scan):
    """It rises linearly from 0: of two layers the first is never dropped, the second always."""
    model, one = make("vivit_ti16x2", stochastic_depth=1.0, scan=scan), make("vivit_ti16x2")
    one.encoder.blocks = nnx.List([one.encoder.blocks[0]])
    np.testing.assert_allclose(model(video(), key=jax.random.key(0)), one(video()), atol=1e-5)


def test_dropout_keeps_the_mean():
    x = jnp.full((4, 5000), 2.0)
    np.testing.assert_allclose(dropout(x, 0.3, jax.random.key(0)).mean(), 2.0, rtol=0.05)
    dropped = dropout(x, 0.3, jax.random.key(0), (4, 1))
    assert all(len(np.unique(row)) == 1 for row in np.asarray(dropped))


@pytest.mark.parametrize("case", ALL)
def test_other_inputs_interpolate_positions(case):
    logits = nnx.jit(lambda model, x: model(x))(make(case), video(1, 8, 48, 32))
    assert logits.shape == (1, 5) and np.isfinite(logits).all()


@pytest.mark.parametrize(
    "shape, message",
    [
        ((1, 3, 32, 32, 3), "model.num_frames: 3 frames"),
        ((1, 4, 36, 32, 3), "model.image_size: height 36"),
        ((1, 4, 32, 32, 4), "video: "),
        ((4, 32, 32, 3), "video: "),
    ],
)
def test_input_that_does_not_divide_is_an_error(shape, message):
    with pytest.raises(ValueError, match=message):
        make("vivit_ti16x2")(jnp.ones(shape))
    with pytest.raises(ValueError, match="float"):
        make("vivit_ti16x2")(jnp.ones((1, 4, 32, 32, 3), jnp.uint8))


def test_local_global_needs_an_even_grid():
    with pytest.raises(ValueError, match="even grid"):
        make("timesformer_b_local_global")(video(1, 5))


@pytest.mark.parametrize(
    "name, fields, count",
    [
        (("vivit_b16x2", 400), {}, 88_954_000),
        (("vivit_b16x2_fe", 400), {}, 115_062_928),
        (("vivit_b16x2_fsa", 400), {}, 117_319_312),
        (("vivit_b16x2_fdpa", 400), {}, 88_952_464),
        (("vivit_l16x2_fe", 400), {"temporal_layers": 24}, 606_827_920),
        (("vivit_l16x2_fe", 600), {"temporal_layers": 24}, 607_032_920),
        (("vivit_l16x2_fe", 174), {"image_size": 256}, 354_733_230),
        (("timesformer_b_space", 174), {}, 85_932_462),
        (("timesformer_b_joint", 174), {}, 85_938_606),
        (("timesformer_b", 174), {}, 121_392_558),
        (("timesformer_b_local_global", 174), {}, 121_392_558),
        (("timesformer_b_axial", 174), {}, 156_846_510),
        (("timesformer_b_space", 400), {}, 86_106_256),
        (("timesformer_b_joint", 400), {}, 86_112_400),
        (("timesformer_b", 400), {}, 121_566_352),
    ],
)
def test_published_parameter_counts(name, fields, count):
    model = nnx.eval_shape(lambda: vivit_jax.create_model(*name, **fields))
    assert sum(x.size for x in jax.tree.leaves(nnx.state(model, nnx.Param))) == count


def test_several_heads():
    model = make("vivit_ti16x2_fe", {"verb": 7, "noun": 3})
    logits = model(video())
    assert {name: x.shape for name, x in logits.items()} == {"verb": (2, 7), "noun": (2, 3)}


def test_bfloat16_computes_close_to_float32():
    exact, rounded = make("timesformer_b"), make("timesformer_b", dtype="bfloat16")
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(nnx.state(rounded, nnx.Param)))
    logits = rounded(video())
    assert logits.dtype == jnp.float32
    difference = np.abs(logits - exact(video())).max() / np.abs(exact(video())).max()
    assert 0 < difference < 0.05


@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(image_size=50), "model.image_size: height 50"),
        (dict(num_frames=0), "model.num_frames: 0"),
        (dict(num_frames=7), "model.num_frames: 7"),
        (dict(attention="dividd"), "model.attention: 'dividd'"),
        (dict(widht=3), "model.widht: no such field; did you mean 'width'"),
        (dict(num_heads=5), "model.num_heads: width 192"),
        (dict(dropout=1.5), "model.dropout: 1.5"),
        (dict(width="wide"), "model.width: 'wide' is not int"),
        (dict(attention="factorized_dot_product"), "model.pool: "),
        (dict(temporal_layers=2), "model.temporal_layers: 2"),
    ],
)
def test_impossible_architectures_name_the_field(fields, message):
    with pytest.raises(ValueError, match=message):
        vivit_jax.create_model("vivit_ti16x2", 5, **fields)


def test_names():
    names = vivit_jax.list_models()
    assert len(names) == len(set(names)) and {"vivit_b16x2_fe", "timesformer_hr"} <= set(names)
    for name in names:
        nnx.eval_shape(lambda name=name: vivit_jax.create_model(name, 3, num_layers=1))
    with pytest.raises(ValueError, match="did you mean 'timesformer_b'"):
        vivit_jax.create_model("timesformerb", 3)
