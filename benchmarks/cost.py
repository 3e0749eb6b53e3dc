"""What a frame costs, by scheme, in clips of 8 to 1,024 frames and 224 to 672 pixels: a forward pass on one v5e chip.

    python benchmarks/cost.py

Multiply-adds are counted in the jaxpr. The compiler's estimate of the cycles, which it gives without running anything,
and the memory beside parameters and input are those of a scanned stack in bfloat16, without kernels, which carry no
estimate. Bytes accessed are those of the same model unrolled, where it has no loops at all: the compiler counts the
bytes of a loop once. results/cost.json and cost.png.
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
from vivit_jax.planning.slices import slice_devices
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
FRAMES, PIXELS = (8, 12, 32, 96, 384, 1024), (224, 320, 448, 544, 672)
PANELS = {
    "multiply_adds": ("10^9 multiply-adds", 1e9),
    "estimated_cycles": ("10^6 cycles by the compiler's estimate", 1e6),
    "temporary_bytes": ("MiB of memory", 2**20),
}


def compiled(name: str, frames: int, pixels: int, **fields: Any) -> tuple[Any, Any]:
    """A forward pass of one clip, and its architecture."""
    size = dict(num_frames=frames, image_size=pixels, dtype="bfloat16", attention_kernel="xla")
    config = model_config(name, 400, **size | fields)
    where = SingleDeviceSharding(slice_devices("v5e:2x2")[0])
    graph, state = nnx.split(nnx.eval_shape(lambda: VideoTransformer(config, preprocessing(name, config), Keys(0))))

    def on_device(shape, dtype):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=where)

    params = jax.tree.map(lambda x: on_device(x.shape, x.dtype), nnx.to_pure_dict(state))
    video = on_device((1, frames, *config.image_size, 3), jnp.bfloat16)
    return jax.jit(lambda params, video: nnx.merge(graph, params)(video)).lower(params, video).compile(), config


def per_frame(name: str, frames: int, pixels: int) -> dict[str, float]:
    """What a scanned stack costs; without estimates where the compiler finds no place for it."""
    try:
        program, config = compiled(name, frames, pixels, scan=True)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        config = model_config(name, 400, num_frames=frames, image_size=pixels, scan=True)
        return {"multiply_adds": cost(config)[1] / frames}
    memory = cast(Any, program.memory_analysis())
    return {
        "multiply_adds": cost(config)[1] / frames,
        "estimated_cycles": hlo.read(program.as_text() or "").cycles / frames,
        "temporary_bytes": memory.temp_size_in_bytes / frames,
    }


def main() -> None:
    found: dict[str, Any] = {"frames": {}, "pixels": {}, "bytes_accessed_per_frame_divided": {}}
    for name in SCHEMES:
        found["frames"][name] = {frames: per_frame(name, frames, 224) for frames in FRAMES}
        found["pixels"][name] = {PIXELS[0]: found["frames"][name][8]}
        found["pixels"][name] |= {pixels: per_frame(name, 8, pixels) for pixels in PIXELS[1:]}
        print(name, json.dumps([found["frames"][name], found["pixels"][name]]), flush=True)
    for frames in (12, 96, 1024):
        bytes_accessed = compiled("timesformer_b", frames, 224)[0].cost_analysis()["bytes accessed"]
        found["bytes_accessed_per_frame_divided"][frames] = bytes_accessed / frames
        print(frames, bytes_accessed / frames, flush=True)
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
