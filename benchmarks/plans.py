"""Plans of every recipe, of long clips and of growing slices: what the TPU compiler says, since no TPU was at hand.

    python benchmarks/plans.py [v5e|v6e|v5p|long|scaling ...]

Each plan is a process of its own, and skipped where results/plans.json has it already.
"""

import json
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "plans.json"
CONFIGS = Path(__file__).parents[1] / "configs"


def recipes(topology: str):
    """Every config at its own global batch."""
    for path in sorted(CONFIGS.glob("*.py")):
        yield f"{path.stem} on {topology}", path.stem, topology, []


def long():
    """Divided attention over long clips, each on a group of devices that share its time steps."""
    for frames, (batch, context) in {96: (64, 4), 384: (64, 4), 1024: (32, 8)}.items():
        flags = [f"--config.model.num_frames={frames}", "--config.model.remat=full", "--config.model.scan=true"]
        flags += [f"--config.train.batch_size={batch}", f"--config.evaluation.batch_size={batch}"]
        flags += [f"--config.mesh.context={context}"]
        yield f"timesformer_l {frames} frames on v5e:16x16", "k400_timesformer_l", "v5e:16x16", flags


def scaling():
    """As many clips on each chip of ever larger slices."""
    for shape, chips in {"2x4": 8, "8x8": 64, "16x16": 256}.items():
        for kind in ("data", "fsdp"):
            flags = [f"--config.train.batch_size={2 * chips}", f"--config.evaluation.batch_size={2 * chips}"]
            flags += [f"--config.mesh.fsdp={chips if kind == 'fsdp' else 1}"]
            yield f"k400_fe, {kind}, {chips} chips", "k400_fe", f"v5e:{shape}", flags


def plan(config: str, topology: str, flags: list[str]) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plan.json"
        command = [sys.executable, "-m", "vivit_jax.main", f"--config=configs/{config}.py", "--mode=plan"]
        command += [f"--topology={topology}", f"--plan_json={path}", *flags]
        done = subprocess.run(command, cwd=CONFIGS.parent, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
        return json.loads(path.read_text())


PARTS = {
    **{slice.split(":")[0]: partial(recipes, slice) for slice in ("v5e:16x16", "v6e:16x16", "v5p:8x8x4")},
    "long": long,
    "scaling": scaling,
}


def main(parts: list[str]) -> None:
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for part in parts or PARTS:
        for name, config, topology, flags in PARTS[part]():
            if name in kept:
                continue
            kept[name] = {"config": config, "flags": flags, **plan(config, topology, flags)}
            RESULTS.write_text(json.dumps(kept, indent=1) + "\n")
            print(
                name,
                "fits" if kept[name]["fits"] else "DOES NOT FIT",
                kept[name]["estimated_cycles_per_step"],
                flush=True,
            )


if __name__ == "__main__":
    main(sys.argv[1:])
