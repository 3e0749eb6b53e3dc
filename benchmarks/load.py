"""python benchmarks/load.py [MODEL]: time and memory of loading published layouts at full size.

Writes random weights of ViViT-B and of the published 24-temporal-layer L factorized encoder (606.8 million parameters)
in Scenic's layout with its momentum, and as a directory, then loads each in a process of its own. Writes
`benchmarks/results/load.json`: seconds, and the peak of resident memory above that of the imported library, beside the
sizes of the file and of the model. Needs 8 GB of memory and 13 GB of disk.
"""

import argparse
import importlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from train import RESULTS, machine

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "ViViT-B/16x2": ("vivit_b16x2", {}),
    "ViViT-L/16x2 FE, 24 temporal layers": ("vivit_l16x2_fe", {"temporal_layers": 24}),
}


def write(name: str, overrides: dict[str, Any], folder: Path) -> None:
    """Both files, in a process of its own."""
    from flax.serialization import msgpack_serialize
    from flax.traverse_util import unflatten_dict

    import vivit_jax
    from vivit_jax.checkpoints import scenic
    from vivit_jax.checkpoints.conversion import write as their_names
    from vivit_jax.checkpoints.parameters import paths

    model = vivit_jax.create_model(name, 400, **overrides)
    vivit_jax.save_pretrained(model, folder / "directory")
    theirs = their_names({k: np.asarray(x) for k, x in paths(model).items()}, scenic.rules(model.config, False))
    tree = unflatten_dict(theirs, sep="/")
    content = {"optimizer": {"state": {"step": 1, "param_states": tree}, "target": tree}, "global_step": 1}
    (folder / "checkpoint").write_bytes(msgpack_serialize(content))


def load(source: Path) -> dict[str, float]:
    """Loads in this process, and measures it."""
    import jax
    from flax import nnx

    import vivit_jax

    jax.block_until_ready(jax.numpy.zeros(1) + 1)
    importlib.import_module("vivit_jax.checkpoints.pretrained")  # so that no import is timed
    before = _peak()
    start = time.perf_counter()
    model = vivit_jax.load_model(source)
    jax.block_until_ready(nnx.state(model))
    seconds = time.perf_counter() - start
    size = sum(x.nbytes for x in jax.tree.leaves(nnx.state(model, nnx.Param)))
    return {"seconds": round(seconds, 2), "peak_bytes": _peak() - before, "model_bytes": size}


def _peak() -> int:
    """Resident memory at its highest. Linux counts mapped pages of the file, which it takes back when needed, too."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure() -> dict[str, Any]:
    results: dict[str, Any] = {}
    for title, (name, overrides) in MODELS.items():
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            subprocess.run([sys.executable, __file__, "--write", name, json.dumps(overrides), temporary], check=True)
            for layout, path in (("Scenic file", "checkpoint"), ("directory", "directory/model.safetensors")):
                source = folder / path.split("/")[0]
                done = subprocess.run(
                    [sys.executable, __file__, "--load", str(source)], capture_output=True, text=True, check=True
                )
                found = json.loads(done.stdout.splitlines()[-1]) | {"file_bytes": (folder / path).stat().st_size}
                found["above_the_model_per_file"] = round(
                    (found["peak_bytes"] - found["model_bytes"]) / found["file_bytes"], 2
                )
                results[f"{title}, {layout}"] = found
                print(title, layout, found, flush=True)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--load", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.write:
        write(arguments.write[0], json.loads(arguments.write[1]), Path(arguments.write[2]))
    elif arguments.load:
        print(json.dumps(load(arguments.load)))
    else:
        report = {"machine": machine(), "loads": measure()}
        (RESULTS / "load.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
