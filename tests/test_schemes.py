"""Every scheme of both papers: its definition, its reach, scan, remat and regularization."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import naive
from models import ALL, make, video
from vivit_jax.models.attention import SCHEMES
from vivit_jax.models.gelu import gelu
from vivit_jax.models.tokens import Tokens, dropout

DROPPING = ("vivit_ti16x2_fe", "timesformer_b")  # random masks make compiling slow


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


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-6), ("bfloat16", 2**-8)])
@pytest.mark.parametrize("tanh", [False, True])
def test_gelu_keeps_its_input_alone(tanh, dtype, tolerance):
    """And is what it is named, to the rounding of its dtype where it is exact."""
    x = (3 * jax.random.normal(jax.random.key(0), (4000,))).astype(dtype)
    out, pull = jax.vjp(lambda x: gelu(x, tanh), x)
    assert [(kept.shape, kept.dtype) for kept in jax.tree.leaves(pull)] == [(x.shape, x.dtype)]
    if not tanh:
        exact = [0.5 * x * (1 + math.erf(x / math.sqrt(2))) for x in np.asarray(x, np.float64)]
        np.testing.assert_allclose(np.asarray(out, np.float64), exact, rtol=tolerance, atol=1e-6)


@pytest.mark.parametrize("case", [case for case in ALL if case != "CLS in time"])
def test_reach(case):
    """In one block a token's gradient reaches what its scheme's steps chain together, and no more."""
    model = make(case, num_layers=1, tubelet_size=1, pool="mean", positions="joint")
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


SLOW = {"timesformer_b", "vivit_ti16x2_fsa", "space, then time", "CLS in time", "timesformer_b_axial"}  # as others


@pytest.mark.parametrize("case", [pytest.param(case, marks=pytest.mark.slow) if case in SLOW else case for case in ALL])
def test_scan_and_remat_change_nothing(case):
    """In values and gradients, over one parameter tree; where something is dropped, the same is."""
    drops = dict(dropout=0.1, attention_dropout=0.1, stochastic_depth=0.3) if case in DROPPING else {}

    def value_and_gradients(model):
        graph, state = nnx.split(model)
        key = jax.random.key(5) if drops else None
        return jax.jit(jax.value_and_grad(lambda state: jnp.sin(nnx.merge(graph, state)(video(), key=key)).sum()))(
            state
        )

    value, gradients = value_and_gradients(make(case, **drops))
    every = (dict(scan=True), dict(remat="full"), dict(remat="dots", scan=True), dict(remat="attention", scan=True))
    for options in every if case in DROPPING else every[2:3]:
        other_value, other_gradients = value_and_gradients(make(case, **drops, **options))
        np.testing.assert_allclose(value, other_value, rtol=1e-5)
        assert jax.tree.structure(gradients) == jax.tree.structure(other_gradients)
        for a, b in zip(jax.tree.leaves(gradients), jax.tree.leaves(other_gradients)):
            np.testing.assert_allclose(a, b, atol=1e-5 * max(1, float(jnp.abs(a).max())))


@pytest.mark.parametrize("case, exact", [("vivit_ti16x2_fe", 8), ("vivit_ti16x2_fsa", 6), ("timesformer_b", 6 + 3)])
def test_scan_keeps_no_kernel_that_it_cast(case, exact):
    """Loops forward give no kernel, those backward gradients of kernels in bfloat16; but for two kernels whose product
    is taken in float32, and for the product. Vectors of norms, and those kernels' biases, stay in it."""
    graph, state = nnx.split(make(case, dtype="bfloat16", scan=True))
    step = jax.make_jaxpr(jax.grad(lambda state: jnp.sin(nnx.merge(graph, state)(video())).sum()))(state)
    loops = [e for e in step.eqns if e.primitive.name == "scan"]
    ways, kernels = (loops[: len(loops) // 2], loops[len(loops) // 2 :]), ((2, 24, 24), (2, 24, 32), (2, 32, 24))
    forward, backward = (
        [x.aval.dtype.name for loop in way for x in loop.outvars if x.aval.shape in kernels] for way in ways
    )
    products = 2 if case == "timesformer_b" else 0  # with what projects after attention, of each of two steps
    assert forward == products * ["bfloat16"]
    assert backward.count("float32") == (3 if products else 0) and backward.count("bfloat16") >= 6
    assert [x.aval.str_short() for loop in ways[0] for x in loop.invars].count("float32[2,24]") == exact


@pytest.mark.parametrize("case", ["timesformer_b", "timesformer_b_local_global", "vivit_ti16x2"])
def test_dropout_that_drops_nothing_changes_nothing(case):
    """Two projections are one product only where nothing is dropped between them; they are the same map."""
    model, dropping = make(case, num_layers=1), make(case, num_layers=1, dropout=1e-7)
    ours = nnx.jit(lambda model: model(video(), key=jax.random.key(0)))(dropping)
    np.testing.assert_allclose(ours, nnx.jit(lambda model: model(video()))(model), atol=1e-5)


@pytest.mark.parametrize("case", ALL)
def test_regularization_is_for_training(case):
    x, key, plain = video(), jax.random.key(7), make(case)
    expected = nnx.jit(lambda model: model(x))(plain)
    for rate in ("dropout", "attention_dropout", "stochastic_depth") if case in DROPPING else ("attention_dropout",):
        graph, state = nnx.split(make(case, **{rate: 0.5}))
        call = jax.jit(lambda k, graph=graph, state=state: nnx.merge(graph, state)(x, key=k))
        np.testing.assert_allclose(call(None), expected, atol=1e-5)
        assert np.abs(call(key) - expected).max() > 1e-3, rate
        np.testing.assert_array_equal(call(key), call(key))
        assert np.abs(call(key) - call(jax.random.key(8))).max() > 1e-3, rate


@pytest.mark.parametrize("case, scan", [*((case, False) for case in ALL), *((case, True) for case in DROPPING)])
def test_stochastic_depth_of_one_leaves_the_residual_path_alone(case, scan):
    """It rises linearly from 0: of two layers the first is never dropped, the second always."""
    model, one = make(case, stochastic_depth=1.0, scan=scan), make(case, stochastic_depth=0.0)
    for encoder in (one.encoder, one.temporal_encoder):
        if encoder is not None:
            encoder.blocks = nnx.List([encoder.blocks[0]])
    dropped = nnx.jit(lambda model: model(video(), key=jax.random.key(0)))(model)
    np.testing.assert_allclose(dropped, nnx.jit(lambda model: model(video()))(one), atol=1e-5)


@pytest.mark.parametrize("positions", ["none", "space", "space_time", "joint"])
def test_the_order_of_frames_counts_where_positions_say_it(positions):
    """TimeSformer table 4: without positions in time the frames are a set."""
    model = make("timesformer_b", positions=positions)
    call = nnx.jit(lambda model, x: model(x))
    difference = np.abs(call(model, video()) - call(model, video()[:, jnp.array([2, 0, 3, 1])])).max()
    assert difference < 1e-5 if positions in ("none", "space") else difference > 1e-3


def test_dropout_keeps_the_mean():
    x = jnp.full((4, 5000), 2.0)
    np.testing.assert_allclose(dropout(x, 0.3, jax.random.key(0)).mean(), 2.0, rtol=0.05)
    dropped = dropout(x, 0.3, jax.random.key(0), (4, 1))
    assert all(len(np.unique(row)) == 1 for row in np.asarray(dropped))


def test_attention_alone_is_computed_again():
    """Between the passes nothing is kept that is as large as the weights."""

    def kept(remat):
        model = make("vivit_ti16x2", remat=remat, num_layers=2)  # the last attends for CLS alone
        graph, state = nnx.split(model)
        _, pull = jax.eval_shape(lambda state, x: jax.vjp(lambda s: nnx.merge(graph, s)(x), state), state, video())
        tokens = model.config.grid[0] * 16 + 1
        return [leaf.shape for leaf in jax.tree.leaves(pull) if leaf.shape[-2:] == (tokens, tokens)]

    assert kept("none") and not kept("attention")
