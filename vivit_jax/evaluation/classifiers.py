"""Classifiers on fixed features: logistic regression, solved to its optimum, and the nearest neighbors."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

TOLERANCE = 1e-6  # of every derivative of the loss
PATIENCE = 20  # iterations after which a loss that float32 cannot lower any more is taken for the lowest
CHUNK = 1024  # queries whose neighbors are looked for at once


class Logistic(NamedTuple):
    """A multinomial logistic regression, and how it was found."""

    kernel: jax.Array  # [D, K], of the features as they are
    bias: jax.Array  # [K]
    loss: jax.Array  # mean cross-entropy + l2 / 2 |kernel|^2, the kernel of the features that were fitted
    gradient: jax.Array  # the largest derivative left
    iterations: jax.Array

    def logits(self, features: np.ndarray) -> np.ndarray:
        """[N, D] -> [N, K]."""
        return np.asarray(jnp.matmul(features, self.kernel, precision="highest") + self.bias)


@partial(jax.jit, static_argnames=("classes", "standardize", "max_iterations"))
def fit(
    features: jax.Array,
    labels: jax.Array,
    weight: jax.Array,
    l2: jax.Array,
    *,
    classes: int,
    standardize: bool,
    max_iterations: int,
    start: tuple[jax.Array, jax.Array] | None = None,
) -> Logistic:
    """Minimizes mean cross-entropy + l2 / 2 |kernel|^2 by L-BFGS; the bias is free.

    That is scikit-learn's with C = 1 / (l2 * N). Features are centered, which changes nothing but how soon it is found.

    Args:
      features: float [N, D].
      labels: int [N].
      weight: float [N]; examples of weight 0 are left out.
      standardize: whether features are brought to deviation 1 first, so that `l2` weighs all alike.
      start: a kernel and bias, of the features as they are, to begin at.
    """
    weight = weight / weight.sum()
    mean = weight @ features
    deviation = jnp.sqrt(weight @ (features - mean) ** 2) if standardize else jnp.ones_like(mean)
    scale = jnp.where(deviation > 1e-6, 1 / jnp.maximum(deviation, 1e-6), 0)  # constant features say nothing
    x = (features - mean) * scale
    target = jax.nn.one_hot(labels, classes, dtype=x.dtype)

    def loss(params):
        kernel, bias = params
        logits = jnp.matmul(x, kernel, precision="highest") + bias
        return weight @ optax.softmax_cross_entropy(logits, target) + l2 / 2 * (kernel**2).sum()

    kernel, bias = jnp.zeros((x.shape[1], classes), x.dtype), jnp.zeros(classes, x.dtype)
    if start is not None:
        kernel, bias = start[0] * jnp.maximum(deviation, 1e-6)[:, None], start[1] + mean @ start[0]
    (kernel, bias), *found = _minimize(loss, (kernel, bias), max_iterations)
    kernel = kernel * scale[:, None]
    return Logistic(kernel, bias - mean @ kernel, *found)


def _minimize(loss: Any, params: Any, max_iterations: int) -> Any:
    """(params, loss, largest derivative, iterations) at the minimum of a convex function."""
    optimizer = optax.lbfgs(memory_size=20)
    value_and_grad = optax.value_and_grad_from_state(loss)

    def largest(grad):
        return jnp.max(jnp.stack([jnp.abs(x).max() for x in jax.tree.leaves(grad)]))

    def goes_on(carry):
        _, _, _, best, stuck, gradient, step = carry
        del best
        return (step < max_iterations) & (gradient > TOLERANCE) & (stuck < PATIENCE)

    def iterate(carry):
        params, state, _, best, stuck, _, step = carry
        value, grad = value_and_grad(params, state=state)
        updates, state = optimizer.update(grad, state, params, value=value, grad=grad, value_fn=loss)
        params = optax.apply_updates(params, updates)
        value, grad = value_and_grad(params, state=state)
        stuck = jnp.where(value < best, 0, stuck + 1)
        return params, state, value, jnp.minimum(value, best), stuck, largest(grad), step + 1

    value, grad = jax.value_and_grad(loss)(params)
    start = params, optimizer.init(params), value, value, 0, largest(grad), 0
    params, _, value, _, _, gradient, steps = jax.lax.while_loop(goes_on, iterate, start)
    return params, value, gradient, steps


def neighbors(
    features: np.ndarray, labels: np.ndarray, queries: np.ndarray, classes: int, count: int, temperature: float
) -> np.ndarray:
    """log of the votes of the `count` nearest by cosine, each exp(cosine / temperature): [Q, D] -> [Q, classes].

    A class that none of them is of has the log of the smallest float, not minus infinity, so that losses are finite.
    """

    @jax.jit
    def vote(bank, queries):
        cosine, nearest = jax.lax.top_k(jnp.matmul(queries, bank.T, precision="highest"), count)
        weight = jax.nn.softmax(cosine / temperature)
        votes = (jax.nn.one_hot(jnp.asarray(labels)[nearest], classes) * weight[..., None]).sum(1)
        return jnp.log(jnp.maximum(votes, jnp.finfo(votes.dtype).tiny))

    count, unit = min(count, len(features)), _unit(features)
    parts = [queries[start : start + CHUNK] for start in range(0, len(queries), CHUNK)]
    return np.concatenate([np.asarray(vote(unit, _unit(part))) for part in parts])


def _unit(x: np.ndarray) -> jax.Array:
    return jnp.asarray(x) / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
