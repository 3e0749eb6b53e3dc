"""Foreign parameters as tables: our path -> their names, and how one becomes the other."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from vivit_jax.architecture import Labels, ModelConfig, Preprocessing
from vivit_jax.errors import UserError, first_line

Which = int | Literal["latest", "best"]  # of a workdir's checkpoints
Tensors = Mapping[str, Callable[[], np.ndarray]]  # names and how to read each; nothing is read before it is asked for


class Codec(NamedTuple):
    """How one of our arrays becomes theirs, and back. `save` is also traced, for the shapes it gives."""

    save: Callable[[Any], list[Any]]  # our array -> one of theirs for each of the rule's names
    load: Callable[[Sequence[np.ndarray], tuple[int, ...]], np.ndarray]  # theirs and our shape -> our array
    axis: int = -1  # along which arrays that share a name are concatenated, in the order of the rules


class Rule(NamedTuple):
    """A line of a format's table."""

    ours: str  # a regular expression of our paths
    theirs: tuple[str, ...]  # their names, with its groups filled in
    codec: Codec


SAME = Codec(lambda x: [x], lambda theirs, shape: theirs[0])
LEADING_ONE = Codec(lambda x: [x[None]], lambda theirs, shape: theirs[0][0])
TRANSPOSED = Codec(lambda x: [x.T], lambda theirs, shape: theirs[0].T)


def positions_codec(cls: bool, first: int) -> Codec:
    """[1, S, D] <-> CLS's row, or the rows from `first` on as a grid."""
    if cls:
        return Codec(lambda x: [x[None]], lambda theirs, shape: theirs[0][0, :1], 1)
    return Codec(
        lambda x: [x.reshape(1, -1, x.shape[-1])], lambda theirs, shape: theirs[0][0, first:].reshape(shape), 1
    )


def columns(start: int, stop: int) -> Codec:
    """One head's classes of a layer that has those of all heads."""
    return Codec(lambda x: [x], lambda theirs, shape: theirs[0][..., start:stop])


# torch: a linear layer is [outputs, inputs], a convolution [outputs, inputs, ...].
TORCH_CONV_2D = Codec(
    lambda x: [x[0].transpose(3, 2, 0, 1)], lambda theirs, shape: theirs[0].transpose(2, 3, 1, 0)[None]
)
TORCH_CONV_3D = Codec(lambda x: [x.transpose(4, 3, 0, 1, 2)], lambda theirs, shape: theirs[0].transpose(2, 3, 4, 1, 0))


def torch_part(index: int) -> Codec:
    """One of query, key and value, where torch has a single layer [3 * outputs, inputs] of them."""

    def load(theirs, shape):
        part = theirs[0][index * shape[-1] : (index + 1) * shape[-1]]
        return part.T

    return Codec(lambda x: [x.T], load, 0)


def by_heads(heads: int, axis: int) -> Codec:
    """flax has the heads' widths [N, H] as two axes; ours are one, at `axis`."""

    def save(x):
        return [x.reshape(*x.shape[:axis], heads, -1, *x.shape[axis + 1 :])]

    return Codec(save, lambda theirs, shape: theirs[0].reshape(shape))


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint of any format, recognized and not yet read."""

    source: str
    config: ModelConfig
    preprocessing: Preprocessing
    labels: Labels | None
    rules: Sequence[Rule]
    tensors: Tensors
    exact: bool = True  # whether ours is the same model; else it can only initialize others


@contextmanager
def believing(source: Any) -> Iterator[None]:
    """Around what takes a file at its word: whatever goes wrong inside is a UserError, which says what it lacks."""
    try:
        yield
    except (UserError, ImportError, MemoryError, Warning):  # said already, or not the file's fault
        raise
    except Exception as error:  # parsers raise whatever they meet in a torn, altered or incomplete file
        reason = f"no {error.args[0]}" if isinstance(error, KeyError) else first_line(error)
        raise UserError(f"{source}: cannot be read; it is damaged or incomplete ({reason})") from error


def match(path: str, rules: Sequence[Rule]) -> tuple[tuple[str, ...], Codec]:
    """The names and codec of one of our paths; what the table does not name has our own."""
    for rule in rules:
        if found := re.fullmatch(rule.ours, path):
            return tuple(found.expand(name) for name in rule.theirs), rule.codec
    return (path,), SAME


def ignored(name: str, ignore: Iterable[str]) -> bool:
    """Whether a path or name has one of `ignore` among its parts: "head" and "blocks/0" are, "hea" is not."""
    whole = f"/{name.replace('.', '/')}/"
    return any(f"/{item.strip('/.').replace('.', '/')}/" in whole for item in ignore)


def read(
    checkpoint: Checkpoint,
    shapes: Mapping[str, tuple[int, ...]],
    ignore: Sequence[str],
    place: Callable[[str, np.ndarray], Any] = lambda path, value: value,
) -> dict[str, Any]:
    """Our arrays by path, float32, except for those of `ignore`.

    Args:
      shapes: every parameter of the model that `checkpoint.config` describes.
      ignore: parts of our paths or of the file's names that may be missing, left over, or of another shape.
      place: makes of each array what is wanted, before the next one is read.
    Raises:
      UserError: lists, at once, all that the file lacks, has too much, or has in another shape; or it is damaged.
    """
    tensors, expected = checkpoint.tensors, _expected(shapes, checkpoint.rules)
    arrays: dict[str, Any] = {}
    missing, wrong = [], []
    for path, shape in shapes.items():
        names, codec = match(path, checkpoint.rules)
        if ignored(path, ignore) or any(ignored(name, ignore) for name in names):
            continue
        if absent := [name for name in names if name not in tensors]:
            missing += absent
            continue
        with believing(checkpoint.source):
            theirs = [np.asarray(tensors[name](), np.float32) for name in names]
        bad = [(n, x.shape) for n, x in zip(names, theirs, strict=True) if x.shape != expected[n]]
        wrong += [f"{name} {list(shape)} for {list(expected[name])}" for name, shape in bad]
        if not bad:
            arrays[path] = place(path, codec.load(theirs, tuple(shape)))
    left = [name for name in tensors if name not in expected and not ignored(name, ignore)]
    _complain(checkpoint.source, missing, left, wrong)
    return arrays


def _expected(shapes: Mapping[str, tuple[int, ...]], rules: Sequence[Rule]) -> dict[str, tuple[int, ...]]:
    """The names and shapes that a file of this format holds."""
    tensors: dict[str, tuple[int, ...]] = {}
    for path, shape in shapes.items():
        names, codec = match(path, rules)
        theirs = jax.eval_shape(codec.save, jax.ShapeDtypeStruct(shape, np.float32))
        for name, x in zip(names, theirs, strict=True):
            axis = codec.axis % x.ndim
            more = tensors[name][axis] if name in tensors else 0
            tensors[name] = (*x.shape[:axis], x.shape[axis] + more, *x.shape[axis + 1 :])
    return tensors


def _complain(source: str, missing: list[str], left: list[str], wrong: list[str]) -> None:
    parts = [
        f"{what} {', '.join(dict.fromkeys(names))}"
        for what, names in (("missing", missing), ("unexpected", left), ("of another shape", wrong))
        if names
    ]
    if parts:
        raise UserError(
            f"{source}: the weights are not this model's: {'; '.join(parts)}. Name what should be left out, as in "
            'ignore=("heads",)'
        )


def write(params: Mapping[str, np.ndarray], rules: Sequence[Rule]) -> dict[str, np.ndarray]:
    """Their tensors of our arrays: the inverse of `read`."""

    def line(path: str) -> int:
        return next((i for i, rule in enumerate(rules) if re.fullmatch(rule.ours, path)), len(rules))

    tensors: dict[str, list[np.ndarray]] = {}
    axes: dict[str, int] = {}
    for path in sorted(params, key=line):
        names, codec = match(path, rules)
        for name, x in zip(names, codec.save(params[path]), strict=True):
            tensors.setdefault(name, []).append(x)
            axes[name] = codec.axis
    return {name: np.ascontiguousarray(np.concatenate(x, axes[name])) for name, x in tensors.items()}
