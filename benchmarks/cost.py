"""What a frame costs in clips of 12 to 1,024 frames: divided and joint attention, by the program and by the compiler.

    python benchmarks/cost.py

Multiply-adds are counted in the jaxpr; bytes are those of a forward pass compiled for one v5e chip (joint attention
over more than 96 frames does not fit there). results/cost.json and cost.png.
"""

import json
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
FRAMES = {"timesformer_b": (12, 24, 48, 96, 192, 384, 1024), "timesformer_b_joint": (12, 24, 48, 96)}
JOINT_ADDS = (192, 384, 1024)
PANELS = (
    ("multiply_adds_per_frame", "10^9 multiply-adds", (25, 50, 100, 200, 400, 800)),
    ("bytes_accessed_per_frame", "gigabytes accessed", (0.25, 0.5, 1, 2, 4)),
)


def forward(name: str, frames: int, device: Any) -> dict[str, float]:
    """Of one clip in bfloat16, by the frame."""
    config = model_config(name, 400, num_frames=frames, dtype="bfloat16")
    where = SingleDeviceSharding(device)
    graph, state = nnx.split(nnx.eval_shape(lambda: VideoTransformer(config, preprocessing(name, config), Keys(0))))

    def on_device(shape, dtype):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=where)

    params = jax.tree.map(lambda x: on_device(x.shape, x.dtype), nnx.to_pure_dict(state))
    video = on_device((1, frames, *config.image_size, 3), jnp.bfloat16)
    compiled = jax.jit(lambda params, video: nnx.merge(graph, params)(video)).lower(params, video).compile()
    analysis, memory = cast(Any, compiled.cost_analysis()), cast(Any, compiled.memory_analysis())
    return {
        "multiply_adds_per_frame": cost(config)[1] / frames,
        "bytes_accessed_per_frame": analysis["bytes accessed"] / frames,
        "temporary_bytes_per_frame": memory.temp_size_in_bytes / frames,
        "estimated_cycles_per_frame": hlo.read(compiled.as_text() or "").cycles / frames,
    }


def main() -> None:
    device, found = slice_devices("v5e:2x2")[0], {}
    for name, counts in FRAMES.items():
        found[name] = {frames: forward(name, frames, device) for frames in counts}
        print(name, {n: {k: f"{v:.4g}" for k, v in facts.items()} for n, facts in found[name].items()}, flush=True)
    for frames in JOINT_ADDS:
        adds = cost(model_config("timesformer_b_joint", 400, num_frames=frames, scan=True))[1]
        found["timesformer_b_joint"][frames] = {"multiply_adds_per_frame": adds / frames}
    (RESULTS / "cost.json").write_text(json.dumps({"jax": jax.__version__, "models": found}, indent=1) + "\n")
    draw(found)


def draw(found: dict[str, Any]) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for ax, key, title, ticks in zip(axes, *zip(*PANELS, strict=True), strict=True):
        for name, facts in found.items():
            points = {int(n): of[key] / 1e9 for n, of in facts.items() if key in of}
            label = "joint" if "joint" in name else "divided"
            ax.plot(list(points), list(points.values()), "o-", label=f"{label} space-time attention")
        ax.set(xscale="log", yscale="log", xlabel="frames of 224 x 224", title=f"{title} per frame, forward")
        ax.set_xticks(FRAMES["timesformer_b"], FRAMES["timesformer_b"])
        ax.set_yticks(ticks, ticks)
        ax.minorticks_off()
        ax.grid(alpha=0.3)
        ax.legend(frameon=False)
    figure.savefig(RESULTS / "cost.png", dpi=120)


if __name__ == "__main__":
    main()
