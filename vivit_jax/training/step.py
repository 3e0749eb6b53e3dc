"""The train state and the jitted step."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from vivit_jax.architecture import ModelConfig, Preprocessing
from vivit_jax.config import Config
from vivit_jax.data.augment import augment_batch, normalize
from vivit_jax.data.decode import FAULTS
from vivit_jax.models.initializers import Keys
from vivit_jax.models.video_transformer import VideoTransformer
from vivit_jax.training.losses import all_right, cross_entropy
from vivit_jax.training.optimizer import hold
from vivit_jax.training.sharding import on_mesh, replicated, state_sharding

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
    """(state, batch of `train_batches`) -> (state, metrics); what is random is a function of (seed, step)."""

    def loss(params, batch, key):
        logits = nnx.merge(graph, hold(config.optimizer.freeze, params))(batch["video"], key=key)
        losses = cross_entropy(logits, batch["target"], config.train.label_smoothing)
        return (batch["weight"] * losses).mean(), (batch["weight"] * all_right(logits, batch["label"])).mean()

    def step(state: State, batch: dict[str, jax.Array]):
        key_augment, key_model = step_keys(config.seed, state["step"])
        video, target = augment_batch(batch, key_augment, config.augment, num_classes(state["params"]))
        # So that the mean over the batch, whatever its parts, is the mean over the clips that could be had.
        weight = batch["weight"] / jnp.maximum(batch["weight"].mean(), 1e-6)
        batch = batch | {"video": normalize(video, preprocessing), "target": target, "weight": weight}
        (value, top_1), grads = gradients(loss, state["params"], batch, key_model, config.train.accumulate)
        updates, opt_state = optimizer.update(grads, state["opt_state"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        new = {"step": state["step"] + 1, "params": params, "opt_state": opt_state}
        if config.train.ema:
            new["ema"] = optax.incremental_update(params, state["ema"], 1 - config.train.ema)
        metrics = {
            "loss": value,
            "top_1": top_1,
            "grad_norm": optax.tree.norm(grads),
            "dropped": count_faults(batch["fault"]),
        }
        return new, metrics | {"learning_rate": jnp.asarray(schedule(state["step"]))}

    return step


def step_keys(seed: int, step: jax.Array | int) -> jax.Array:
    """The keys of a step's augmentation and of its model."""
    return jax.random.split(jax.random.fold_in(jax.random.key(seed), step))


def num_classes(params: dict[str, Any]) -> int | dict[str, int]:
    """Of each head of a model's parameters, as its config has it."""
    heads = {name: head["bias"].shape[0] for name, head in params["heads"].items()}
    return heads["head"] if heads.keys() == {"head"} else heads


def count_faults(fault: jax.Array) -> dict[str, jax.Array]:
    """How many clips could not be had, by reason."""
    return {name: (fault == number).sum() for number, name in enumerate(FAULTS, 1)}


def jit_train_step(step: Callable, mesh: jax.sharding.Mesh, state: State) -> Callable:
    """Compiles for the mesh; the old state's memory is reused for the new one."""
    shardings = state_sharding(mesh, state)
    outs = (shardings, replicated(mesh))  # a batch lies where `to_devices` has put it
    return jax.jit(on_mesh(step, mesh), in_shardings=(shardings, None), out_shardings=outs, donate_argnums=0)
