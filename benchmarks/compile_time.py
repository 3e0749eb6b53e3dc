"""How long the TPU compiler takes for a training step on one v5e chip, by which malloc it is given.

    python benchmarks/compile_time.py /usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4

Steps are those of cycles.py, each in a process of its own, in turns with glibc's malloc and with the library that is
named; results/compile_time.json has every round, added to those that it has of the same machine and versions. Compile
nothing else meanwhile. Remove it when the models change.
"""

import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cycles import STEPS, step
from train import RESULTS, earlier, machine, times_faster

from vivit_jax.compiled import choose_compiler_options

MODELS = [name for name in STEPS if name != "vivit_l16x2_fe"]
ROUNDS = 2


def compile_here(name: str, library: str) -> None:
    """Prints the seconds, in a process that was started with `library`, if any."""
    if library and Path(library).resolve().name not in Path("/proc/self/maps").read_text():
        sys.exit(f"{library} was not loaded")
    choose_compiler_options()  # as `python -m vivit_jax.main` does
    batch, parts = STEPS[name]["v5e"]
    print(step(name, "v5e", batch, parts)["compile_seconds"][0])


def seconds(name: str, library: str) -> float:
    command = [sys.executable, __file__, name, library]
    env = os.environ | {"LD_PRELOAD": library, "LIBTPU_INIT_ARGS": ""}
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, check=True)
    return float(done.stdout)


def facts(library: str) -> dict[str, Any]:
    software = {"libtpu": version("libtpu"), "glibc": platform.libc_ver()[1], "library": Path(library).resolve().name}
    return machine() | software


def report(library: str, rounds: dict[str, dict[str, list[float]]]) -> dict[str, Any]:
    ratios = {name: times_faster(found["library"], found["glibc"]) for name, found in rounds.items()}
    return {"machine": facts(library), "seconds": rounds, "times_faster": ratios}


def main(library: str) -> None:
    path = RESULTS / "compile_time.json"
    known = earlier(path, facts(library)).get("seconds", {})
    rounds: dict[str, dict[str, list[float]]] = {name: known.get(name, {"glibc": [], "library": []}) for name in MODELS}
    for _ in range(ROUNDS):
        for name, found in rounds.items():
            found["glibc"].append(seconds(name, ""))
            found["library"].append(seconds(name, library))
            print(name, found, flush=True)
    path.write_text(json.dumps(report(library, rounds), indent=1) + "\n")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        compile_here(*sys.argv[1:])
    elif len(sys.argv) == 2:
        main(sys.argv[1])
    else:
        sys.exit(__doc__)
