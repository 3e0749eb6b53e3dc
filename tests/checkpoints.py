"""Checkpoint files of foreign layouts, made of the goldens."""

import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.serialization import msgpack_serialize
from flax.traverse_util import unflatten_dict

from vivit_jax.checkpoints.parameters import paths

GOLDENS = Path(__file__).parent / "goldens"


def golden(name):
    return dict(np.load(GOLDENS / f"{name}.npz"))


def params_of(values):
    return {name.removeprefix("param/"): x for name, x in values.items() if name.startswith("param/")}


def logits_of(model, x):
    x = jnp.asarray(x if x.shape[-1] == 3 else x.transpose(0, 1, 3, 4, 2))
    return nnx.jit(lambda model, x: model(x))(model, x)


def same(a, b):
    a, b = paths(a), paths(b)
    assert a.keys() == b.keys()
    for path in a:
        np.testing.assert_array_equal(a[path], b[path], err_msg=path)


def scenic_file(path, params, layout, momentum=False):
    tree = unflatten_dict(params, sep="/")
    for key in reversed(layout.split("/")):
        tree = {key: tree} | (
            {"state": {"step": 7, "param_states": unflatten_dict(params, sep="/")}} if momentum else {}
        )
        momentum = False
    path.write_bytes(msgpack_serialize({"global_step": 3, **tree, "rng": np.arange(2, dtype=np.uint32)}))
    return path


def changed(tmp_path, change):
    from safetensors.numpy import load_file, save_file

    directory = tmp_path / "model"
    shutil.copytree(GOLDENS / "hf_vivit_dir", directory)
    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors")
    return directory
