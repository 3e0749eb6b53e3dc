"""With which options programs are compiled, and where they are kept from one start to the next."""

import os
from pathlib import Path

COMPILER_OPTIONS = {
    # GPUs add biases, and compute ViViT's GELU, within products of cuBLAS. XLA otherwise makes kernels of its own of
    # products, and writes and reads their results once more.
    "XLA_FLAGS": "--xla_gpu_enable_triton_gemm=false",
    # Programs for TPUs call what their layers have in common instead of repeating it: they are smaller and compiled
    # sooner, with the same estimate. PyTorch's programs for TPUs do so as well.
    "LIBTPU_INIT_ARGS": "--xla_tpu_enable_deduplicated_calls=true",
}


def keep_compiled(folder: Path) -> None:
    """In `folder`, unless JAX was told of another place: the next start is sooner."""
    import jax

    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(folder.absolute()))


def user_cache() -> Path:
    """Of the person who runs the command."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vivit_jax" / "compiled"


def choose_compiler_options() -> None:
    """Options of XLA for the device that there will be, unless it was told otherwise; without effect once JAX has
    looked for devices."""
    for variable, option in COMPILER_OPTIONS.items():
        flags = os.environ.get(variable, "")
        if option.partition("=")[0] not in flags:
            os.environ[variable] = f"{flags} {option}".strip()
