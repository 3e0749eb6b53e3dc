"""python scripts/export_stablehlo.py SOURCE TARGET: what `load_model` reads -> a program for JAX alone.

TARGET gets forward.stablehlo, weights.safetensors and forward.json, which says how to call it.
"""

from collections.abc import Sequence

from absl import flags
from convert_checkpoint import load  # the script beside this one: its flags choose what is loaded

import vivit_jax
from vivit_jax import errors

PLATFORMS = flags.DEFINE_list("platforms", ["cpu", "cuda", "tpu"], "What it can be compiled for.")


def main(argv: Sequence[str]) -> None:
    model, target = load(argv)
    vivit_jax.export_forward(model, target, PLATFORMS.value)
    print(
        f"{target}: {', '.join(PLATFORMS.value)}; uint8 [B, {model.config.num_frames}, "
        f"{model.config.image_size[0]}, {model.config.image_size[1]}, 3]"
    )


if __name__ == "__main__":
    errors.run(main)
