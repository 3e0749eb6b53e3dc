"""flax's msgpack files, read array by array: a checkpoint's parameters without its optimizer's state."""

import mmap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
from flax.serialization import msgpack_restore

from vivit_jax.checkpoints.conversion import Tensors
from vivit_jax.errors import UserError


def read_msgpack(path: Path, layouts: Sequence[str]) -> Tensors:
    """The arrays under the first of `layouts` (prefixes of their paths) that the file has; none is read yet.

    Raises:
      UserError: the file is cut short, is none of flax's, or has none of the layouts.
    """
    with path.open("rb") as file:
        view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        leaves = dict(_leaves(view))
    except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
        raise UserError(f"{path}: is not a flax msgpack checkpoint, or is cut short ({error})") from error
    for layout in layouts:
        found = {name.removeprefix(layout): at for name, at in leaves.items() if name.startswith(layout)}
        if found:
            return {name: lambda at=at: np.asarray(msgpack_restore(view[slice(*at)])) for name, at in found.items()}
    raise UserError(f"{path}: no parameters under {', '.join(x.rstrip('/') for x in layouts)}")


def _leaves(view: mmap.mmap) -> Iterator[tuple[str, tuple[int, int]]]:
    """Where each array of the nested maps lies in the file. Nothing of it is decoded: half is the optimizer's."""
    unpacker = msgpack.Unpacker(view, max_buffer_size=0, read_size=1 << 20)
    yield from _walk(unpacker, view, "")
    if unpacker.tell() != len(view):
        raise ValueError(f"{len(view) - unpacker.tell()} bytes follow its end")


def _walk(unpacker: Any, view: mmap.mmap, path: str) -> Iterator[tuple[str, tuple[int, int]]]:
    start = unpacker.tell()
    if start >= len(view):
        raise ValueError("it ends early")
    kind = view[start]
    if not (0x80 <= kind <= 0x8F or kind in (0xDE, 0xDF)):  # no map
        unpacker.skip()
        yield path, (start, unpacker.tell())
        return
    for index in range(unpacker.read_map_header()):
        key = unpacker.unpack()
        if index == 0 and key == "__msgpack_chunked_array__":
            unpacker.skip()
            for _ in range(2 * 2):  # its shape and its chunks
                unpacker.skip()
            yield path, (start, unpacker.tell())
            return
        yield from _walk(unpacker, view, f"{path}/{key}" if path else str(key))
