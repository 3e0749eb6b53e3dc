"""The whole model: what goes in, what comes out, what can be looked at inside."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.interpreters.partial_eval import dce_jaxpr

from models import ALL, make, video
from vivit_jax.models.attention import SCHEMES
from vivit_jax.models.block import Block
from vivit_jax.models.tokenizers import resize_axis
from vivit_jax.summary import multiply_adds


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("case", ALL)
def test_taps(case, scan):
    model = make(case, scan=scan)
    logits, taps = nnx.jit(lambda model, x: model(x, return_taps="attention"))(model, video())
    np.testing.assert_allclose(logits, nnx.jit(lambda model, x: model(x))(model, video()), atol=1e-5)
    config, (t, h, w) = model.config, model.config.grid
    assert taps["embedding"].shape == (2, t, h, w, 24) and taps["features"].shape == (2, 24)
    encoder, scheme = taps["encoder"], SCHEMES[config.attention]
    assert encoder["layers"].patches.shape == (2, 2, t, h, w, 24)
    assert encoder["output"].patches.shape == (2, t, h, w, 24)
    if config.pool == "cls":
        assert encoder["layers"].cls.shape == (2, 2, t if scheme.per_frame else 1, 24)
    # Maps of every step, for all of the heads; over its keys each query's weights add up to 1.
    assert set(encoder["attention"]) == {axes for step in scheme.steps for axes in step.axes}
    for step in model.encoder.blocks[0].attention:
        for axes in step.step.axes:
            maps = encoder["attention"][axes]
            layers, batch, groups, heads, queries, keys = maps.shape
            with_cls = step.step.cls and config.pool == "cls"
            assert (layers, batch, heads, queries) == (2, 2, 4 // len(step.step.axes), keys)
            assert groups * (queries - with_cls) == t * h * w
            np.testing.assert_allclose(maps.sum(-1), 1, atol=1e-5)


def test_taps_of_the_factorized_encoder_show_both_encoders():
    model = make("vivit_ti16x2_fe")
    _, taps = model(video(), return_taps="attention")
    assert taps["temporal_encoder"]["layers"].patches.shape == (2, 2, 2, 1, 1, 24)
    assert taps["temporal_encoder"]["attention"]["time"].shape == (2, 2, 1, 4, 3, 3)
    steps = taps["encoder"]["output"].cls  # [B, T, D]: the temporal encoder's input
    np.testing.assert_allclose(taps["encoder"]["layers"].cls.shape[1:], steps.shape)
    tokens, _ = model.temporal_encoder(steps[:, :, None, None], None, False)
    np.testing.assert_allclose(model.temporal_encoder.pool(tokens)[:, 0], taps["features"], atol=1e-5)


def test_attention_maps_are_computed_on_request_alone():
    def outputs(taps):
        _, seen = jax.eval_shape(lambda x: make("timesformer_b")(x, return_taps=taps), video())
        return seen["encoder"].keys()

    assert outputs(True) == {"layers", "output"} and outputs("attention") == {"layers", "output", "attention"}
    _, seen = jax.eval_shape(lambda x: make("timesformer_b")(x, return_taps=lambda axes, x: x.mean(2)), video())
    assert {axes: x.shape for axes, x in seen["encoder"]["attention"].items()} == {
        "time": (2, 2, 16, 4, 4), "space": (2, 2, 4, 17, 17),
    }  # fmt: skip
    with pytest.raises(ValueError, match="return_taps: 'maps'"):
        make("timesformer_b")(video(), return_taps="maps")


@pytest.mark.parametrize("pool", ["mean", "max", "sum"])
@pytest.mark.parametrize(
    "case", ["vivit_ti16x2", "vivit_ti16x2_fsa", "vivit_ti16x2_fdpa", "timesformer_b", "vivit_ti16x2_fe"]
)
def test_pooling(case, pool):
    model = make(case, pool=pool)
    _, taps = nnx.jit(lambda model, x: model(x, return_taps=True))(model, video())
    assert taps["encoder"]["output"].cls is None
    pooled = getattr(np, pool)
    if case.endswith("_fe"):
        frames, _ = model.temporal_encoder(
            pooled(taps["encoder"]["output"].patches, (2, 3))[:, :, None, None], None, False
        )
        np.testing.assert_allclose(model.temporal_encoder.pool(frames)[:, 0], taps["features"], atol=1e-4)
        taps = {"encoder": taps["temporal_encoder"], "features": taps["features"]}
    np.testing.assert_allclose(taps["features"], pooled(taps["encoder"]["output"].patches, (1, 2, 3)), atol=1e-4)


@pytest.mark.parametrize("case", ALL)
def test_other_inputs_interpolate_positions(case):
    """What a model of the other size gives, with this one's tables resized."""
    model, other = make(case), make(case, num_frames=8, image_size=(48, 32))
    tables = dict(nnx.to_flat_state(nnx.state(other, nnx.Param)))
    for path, value in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        param = tables[path]
        table = value[...]
        if path[-2:] in (("positions", "space"), ("positions", "time")):
            for axis, size in enumerate(param.shape[:3]):
                table = resize_axis(table, axis, size, model.config.position_resize)
        param[...] = table
    call = nnx.jit(lambda model, x: model(x))
    x = video(1, 8, 48, 32)
    np.testing.assert_allclose(call(model, x), call(other, x), atol=1e-5)


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


@pytest.mark.parametrize("pool, kinds", [("mean", 1), ("cls", 2)])  # the last layer is of its own where CLS is read
def test_layers_that_are_alike_are_traced_once(pool, kinds, monkeypatch):
    traced, call = [], Block.__call__
    monkeypatch.setattr(Block, "__call__", lambda *args: traced.append(1) or call(*args))
    model = make("vivit_ti16x2", num_layers=5, mlp_dim=36, pool=pool)  # a size that no other test has traced already
    jax.make_jaxpr(model)(video())
    assert len(traced) == kinds


ATTENDS_FOR_CLS = ("vivit_ti16x2", "vivit_ti16x2_fe", "timesformer_b", "timesformer_b_space", "timesformer_b_joint")
ATTENDS_FOR_CLS += ("parallel", "CLS in time")


@pytest.mark.parametrize("case", [*ATTENDS_FOR_CLS, "timesformer_b_axial", "space, then time", "vivit_ti16x2_fsa"])
def test_the_last_layer_attends_for_cls_alone(case):
    """Where it can: logits and gradients are those of a pass that shows all tokens, for fewer multiply-adds."""
    graph, state = nnx.split(make(case, stochastic_depth=0.4))
    key = jax.random.key(3)

    def logits(state, taps):
        out = nnx.merge(graph, state)(video(), key=key, return_taps=taps)
        return jnp.sin(out[0] if taps else out).sum(), out[0] if taps else out

    def adds(taps):
        jaxpr = jax.make_jaxpr(lambda state: logits(state, taps)[1])(state).jaxpr
        return multiply_adds(dce_jaxpr(jaxpr, [True])[0])

    alone, whole = (jax.jit(jax.grad(partial(logits, taps=taps), has_aux=True))(state) for taps in (False, True))
    for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * max(1, float(jnp.abs(b).max())))
    assert (adds(False) < adds(True)) == (case in ATTENDS_FOR_CLS)


def test_what_the_last_layer_drops_is_the_same_with_taps():
    """So it attends for all tokens there: masks of other shapes would be other masks."""
    model = make("vivit_ti16x2", dropout=0.2, attention_dropout=0.2)
    logits, _ = model(video(), key=jax.random.key(3), return_taps=True)
    np.testing.assert_allclose(model(video(), key=jax.random.key(3)), logits, atol=1e-5)
