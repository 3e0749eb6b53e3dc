"""What a frame costs, by scheme, in clips of 8 to 1,024 frames and 224 to 672 pixels: a forward pass on one v5e chip.

    python benchmarks/cost.py

Multiply-adds are counted in the jaxpr. The rest is read off the compiled module of a scanned stack in bfloat16, without
kernels, which carry no estimate, and with loops as often as they run: the bytes that instructions read and write, those
of them from and to HBM, the cycles by the compiler's estimate, and the memory beside parameters and input. Nothing is
run. results/cost.json and cost.png.
"""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
from flax import nnx
from jax.sharding import SingleDeviceSharding

from vivit_jax.models.initializers import Keys
from vivit_jax.models.video_transformer import VideoTransformer
from vivit_jax.planning import hlo
from vivit_jax.planning.slices import CHIPS, slice_devices
from vivit_jax.summary import cost
from vivit_jax.variants import model_config, preprocessing

RESULTS = Path(__file__).parent / "results"
SCHEMES = {
    "timesformer_b": "divided",
    "timesformer_b_space": "space",
    "timesformer_b_joint": "joint",
    "timesformer_b_local_global": "local-global",
    "timesformer_b_axial": "axial",
    "vivit_b16x2": "ViViT 1: joint",
    "vivit_b16x2_fe": "ViViT 2: factorized encoder",
    "vivit_b16x2_fsa": "ViViT 3: factorized self-attention",
    "vivit_b16x2_fdpa": "ViViT 4: factorized dot-product",
}
FRAMES, PIXELS = (8, 12, 32, 96, 384, 1024), (224, 448, 672)
PANELS = {  # key: title, and what one of its units is
    "multiply_adds": ("10^9 multiply-adds", 1e9),
    "bytes_accessed": ("gigabytes accessed", 1e9),
    "estimated_cycles": ("estimated milliseconds", 1e-3 * cast(float, CHIPS["v5e"].clock)),
}


def per_frame(name: str, frames: int, pixels: int) -> dict[str, float]:
    """What is said of one clip's module; multiply-adds alone where the compiler finds no place for it."""
    size = dict(num_frames=frames, image_size=pixels, dtype="bfloat16", attention_kernel="xla", scan=True)
    config = model_config(name, 400, **size)
    found = {"multiply_adds": cost(config)[1]}
    where = SingleDeviceSharding(slice_devices("v5e:2x2")[0])
    graph, state = nnx.split(nnx.eval_shape(lambda: VideoTransformer(config, preprocessing(name, config), Keys(0))))

    def on_device(shape, dtype):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=where)

    params = jax.tree.map(lambda x: on_device(x.shape, x.dtype), nnx.to_pure_dict(state))
    video = on_device((1, frames, *config.image_size, 3), jnp.bfloat16)
    try:
        program = jax.jit(lambda params, video: nnx.merge(graph, params)(video)).lower(params, video).compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
    else:
        module = hlo.read(program.as_text() or "")
        found |= {"bytes_accessed": module.bytes_accessed, "hbm_traffic": module.hbm_traffic}
        found |= {"estimated_cycles": module.cycles}
        found |= {"temporary_bytes": int(cast(Any, program.memory_analysis()).temp_size_in_bytes)}
    return {what: count / frames for what, count in found.items()}


def main() -> None:
    found: dict[str, Any] = {"frames": {}, "pixels": {}}
    for name in SCHEMES:
        found["frames"][name] = {frames: per_frame(name, frames, 224) for frames in FRAMES}
        found["pixels"][name] = {PIXELS[0]: found["frames"][name][FRAMES[0]]}
        found["pixels"][name] |= {pixels: per_frame(name, FRAMES[0], pixels) for pixels in PIXELS[1:]}
        print(name, json.dumps([found["frames"][name], found["pixels"][name]]), flush=True)
    facts = {"jax": jax.__version__, "libtpu": version("libtpu"), "per_frame": found}
    (RESULTS / "cost.json").write_text(json.dumps(facts, indent=1) + "\n")
    draw(found)


def draw(found: dict[str, Any]) -> None:
    figure, grid = plt.subplots(2, len(PANELS), figsize=(14, 8), layout="constrained")
    for row, axis, ticks in zip(grid, ("frames", "pixels"), (FRAMES, PIXELS), strict=True):
        for ax, (key, (title, unit)) in zip(row, PANELS.items(), strict=True):
            for name, label in SCHEMES.items():
                points = {int(n): of[key] / unit for n, of in found[axis][name].items() if key in of}
                ax.plot(list(points), list(points.values()), "o-" if name.startswith("t") else "s--", label=label, ms=4)
            what = "frames of 224 x 224" if axis == "frames" else "pixels to a side, 8 frames"
            ax.set(xscale="log", yscale="log", xlabel=what, title=f"{title} per frame")
            ax.set_xticks(ticks, ticks)
            ax.minorticks_off()
            ax.grid(alpha=0.3)
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
    figure.savefig(RESULTS / "cost.png", dpi=100)


if __name__ == "__main__":
    main()
