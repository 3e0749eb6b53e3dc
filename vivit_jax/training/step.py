"""The train state and the jitted step."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from vivit_jax.architecture import ModelConfig, Preprocessing
from vivit_jax.config import Config
from vivit_jax.data.augment import augment_clips, normalize
from vivit_jax.data.mixing import mix
from vivit_jax.models.initializers import Keys
from vivit_jax.models.video_transformer import VideoTransformer
from vivit_jax.training.losses import cross_entropy
from vivit_jax.training.sharding import batch_sharding, replicated, state_sharding

State = dict[str, Any]  # step, params, opt_state, and ema where it is on


def make_state(
    config: Config, model: ModelConfig, preprocessing: Preprocessing, optimizer: optax.GradientTransformation
) -> tuple[nnx.GraphDef, Callable[[], State]]:
    """The model without its parameters, and a function that creates the initial state."""

    def create():
        return nnx.split(VideoTransformer(model, preprocessing, Keys(config.seed)), nnx.Param)

    # The structure alone: nothing is computed.
    graph, _ = nnx.split(nnx.eval_shape(lambda: nnx.merge(*create())), nnx.Param)

    def init() -> State:
        params = nnx.to_pure_dict(create()[1])
        state = {"step": jnp.zeros((), jnp.int32), "params": params, "opt_state": optimizer.init(params)}
        return state | ({"ema": jax.tree.map(jnp.copy, params)} if config.train.ema else {})

    return graph, init


def gradients(loss: Callable, params, batch: dict[str, jax.Array], key: jax.Array, parts: int):
    """Value and gradient of `loss(params, batch, key)`, the mean over `parts` equal parts of the batch."""
    if parts == 1:
        return jax.value_and_grad(loss, has_aux=True)(params, batch, key)

    def split(x):  # strided, so that every device holds its share of every part
        return x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1)

    def body(total, xs):
        return jax.tree.map(jnp.add, total, jax.value_and_grad(loss, has_aux=True)(params, *xs)), None

    xs = jax.tree.map(split, batch), jax.random.split(key, parts)
    shapes = jax.eval_shape(jax.value_and_grad(loss, has_aux=True), params, *jax.tree.map(lambda x: x[0], xs))
    total, _ = jax.lax.scan(body, jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes), xs)
    return jax.tree.map(lambda x: x / parts, total)


def train_step_fn(
    config: Config,
    graph: nnx.GraphDef,
    preprocessing: Preprocessing,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
) -> Callable[[State, dict[str, jax.Array]], tuple[State, dict[str, jax.Array]]]:
    """(state, {"video": uint8 [B, T, h, w, 3], "label": [B]}) -> (state, metrics); what is random is (seed, step)'s."""

    def loss(params, batch, key):
        logits = nnx.merge(graph, params)(batch["video"], key=key)
        value = cross_entropy(logits, batch["target"], config.train.label_smoothing).mean()
        return value, (logits.argmax(-1) == batch["label"]).mean()

    def step(state: State, batch: dict[str, jax.Array]):
        key = jax.random.fold_in(jax.random.key(config.seed), state["step"])
        key_augment, key_model = jax.random.split(key)
        video, target = augment_clips(batch["video"], key_augment, config.augment), batch["label"]
        if config.augment.mixup or config.augment.cutmix:
            classes = state["params"]["heads"]["head"]["bias"].shape[0]
            target = jax.nn.one_hot(target, classes)
            video, target = mix(video, target, jax.random.fold_in(key_augment, 1), config.augment)
        batch = batch | {"video": normalize(video, preprocessing), "target": target}
        (value, top_1), grads = gradients(loss, state["params"], batch, key_model, config.train.accumulate)
        updates, opt_state = optimizer.update(grads, state["opt_state"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        new = {"step": state["step"] + 1, "params": params, "opt_state": opt_state}
        if config.train.ema:
            new["ema"] = optax.incremental_update(params, state["ema"], 1 - config.train.ema)
        metrics = {"loss": value, "top_1": top_1, "grad_norm": optax.tree.norm(grads)}
        return new, metrics | {"learning_rate": jnp.asarray(schedule(state["step"]))}

    return step


def jit_train_step(step: Callable, mesh: jax.sharding.Mesh, state: State) -> Callable:
    """Compiles for the mesh; the old state's memory is reused for the new one."""
    shardings = state_sharding(mesh, state)
    ins = (shardings, batch_sharding(mesh))
    return jax.jit(step, in_shardings=ins, out_shardings=(shardings, replicated(mesh)), donate_argnums=0)
