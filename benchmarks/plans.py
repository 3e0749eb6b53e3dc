"""Plans of every recipe, of long clips and of growing slices: what the TPU compiler says, since no TPU was at hand.

    python benchmarks/plans.py [v5e|v6e|v5p|long|scaling ...]

Each plan is a process of its own, and skipped where results/plans.json has it already. The tables go to docs/plans.md.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from vivit_jax.summary import spoken

HERE = Path(__file__).parent
RESULTS, TABLES, CONFIGS = HERE / "results" / "plans.json", HERE.parent / "docs" / "plans.md", HERE.parent / "configs"
Request = tuple[str, str, str, list[str]]  # name, config, topology, flags


def recipes(topology: str) -> Iterator[Request]:
    """Every config at its own global batch."""
    for path in sorted(CONFIGS.glob("*.py")):
        yield f"{path.stem} on {topology}", path.stem, topology, []


def long() -> Iterator[Request]:
    """Divided attention over long clips, each on a group of devices that share its time steps; scanned and not."""
    for frames, (batch, context) in {96: (64, 4), 384: (64, 4), 1024: (32, 8)}.items():
        flags = [f"--config.model.num_frames={frames}", "--config.model.remat=full"]
        flags += [f"--config.train.batch_size={batch}", f"--config.evaluation.batch_size={batch}"]
        flags += [f"--config.mesh.context={context}"]
        for kind, scan in (("", ["--config.model.scan=true"]), (", unrolled", [])):
            yield f"timesformer_l, {frames} frames{kind}", "k400_timesformer_l", "v5e:16x16", flags + scan


def scaling() -> Iterator[Request]:
    """As many clips on each chip of ever larger slices."""
    for shape, chips in {"2x4": 8, "8x8": 64, "16x16": 256}.items():
        for kind in ("data", "fsdp"):
            flags = [f"--config.train.batch_size={2 * chips}", f"--config.evaluation.batch_size={2 * chips}"]
            flags += [f"--config.mesh.fsdp={chips if kind == 'fsdp' else 1}"]
            yield f"k400_fe, {kind}, {chips} chips", "k400_fe", f"v5e:{shape}", flags


PARTS = {
    **{slice.split(":")[0]: partial(recipes, slice) for slice in ("v5e:16x16", "v6e:16x16", "v5p:8x8x4")},
    "long": long,
    "scaling": scaling,
}
TITLES = {
    "v5e": "Recipes on v5e:16x16",
    "v6e": "Recipes on v6e:16x16",
    "v5p": "Recipes on v5p:8x8x4",
    "long": "Long clips: divided attention, everything rematerialized, scanned but where it says otherwise",
    "scaling": "Weak scaling: ViViT-B FE, two clips on each chip",
}


def plan(config: str, topology: str, flags: list[str]) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plan.json"
        command = [sys.executable, "-m", "vivit_jax.main", f"--config=configs/{config}.py", "--mode=plan"]
        command += [f"--topology={topology}", f"--plan_json={path}", *flags]
        done = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
        return json.loads(path.read_text())


def row(name: str, facts: dict) -> str:
    mesh = " x ".join(f"{axis} {size}" for axis, size in facts["mesh"].items() if size > 1)
    used, limit = facts["hbm_bytes_per_chip"] / 2**30, facts["hbm_limit_bytes"] / 2**30
    above, below = ("≥ ", "≤ ") if facts["loops_of_unknown_length"] else ("", "")
    moved = sum(kind["bytes"] for kind in facts["collectives"].values()) / 2**20
    cells = [
        name.split(" on ")[0],
        facts["batch_size"],
        mesh,
        f"{'fits' if facts['fits'] else '**does not fit**'}, {used:.1f} of {limit:.1f} GiB",
        spoken(facts["multiply_adds_per_clip"]),
        f"{facts['bytes_accessed_per_step'] / 1e9:,.1f} GB, {facts['hbm_traffic_bytes_per_step'] / 1e9:,.1f} GB",
        f"{above}{facts['estimated_cycles_per_step'] / 1e6:,.1f}M",
        f"{below}{facts['estimated_clips_per_second'] or 0:,.0f}",
        f"{below}{facts['estimated_utilization'] or 0:.2f}",
        f"{moved:,.0f} MiB, {1e3 * facts['least_collective_seconds']:.1f} ms",
    ]
    return f"| {' | '.join(map(str, cells))} |"


def tables(kept: dict[str, dict]) -> str:
    heads = "plan", "clips", "mesh", "HBM per chip", "multiply-adds per clip", "bytes accessed per chip, in HBM"
    heads = (
        *heads,
        "cycles (estimate)",
        "clips/s (estimate)",
        "utilization (estimate)",
        "collectives per chip, at least",
    )
    versions = sorted({f"jax {facts['jax']}, libtpu {facts['libtpu']}" for facts in kept.values()})
    text = "# Plans\n\nMade by `python benchmarks/plans.py` with " + "; ".join(versions) + ". "
    text += (
        "Nothing was run: cycles are the compiler's\nestimate, which leaves collectives out; beside it is the least "
    )
    text += (
        "time that their bytes take, if nothing hides them. [How to\nread a plan](pods.md#2-knowing-before-paying). "
        "Where ≥ stands, short loops whose length is not known before\n"
        "they run are counted once: those that draw mixup's random numbers.\n\n"
        "They are of programs as they were before last layers attended for CLS alone, and before programs called what\n"
        "their layers share: models that classify by CLS have fewer cycles now, and all programs are smaller.\n"
    )
    for part, requests in PARTS.items():
        rows = [row(name, kept[name]) for name, *_ in requests() if name in kept]
        if rows:
            lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads), *rows]
            text += f"\n## {TITLES[part]}\n\n" + "\n".join(lines) + "\n"
    return text


def main(parts: list[str]) -> None:
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for part in parts or PARTS:
        for name, config, topology, flags in PARTS[part]():
            if name not in kept:
                kept[name] = {"config": config, "flags": flags, **plan(config, topology, flags)}
                RESULTS.write_text(json.dumps(kept, indent=1) + "\n")
                print(row(name, kept[name]), flush=True)
    TABLES.write_text(tables(kept))


if __name__ == "__main__":
    main(sys.argv[1:])
