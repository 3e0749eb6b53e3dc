"""Where compiled programs are kept from one start to the next."""

import os
from pathlib import Path


def keep_compiled(folder: Path) -> None:
    """In `folder`, unless JAX was told of another place: the next start is sooner."""
    import jax

    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(folder.absolute()))


def user_cache() -> Path:
    """Of the person who runs the command."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vivit_jax" / "compiled"


def add_biases_in_products() -> None:
    """GPUs add biases, and compute ViViT's GELU, within products of cuBLAS; without effect once JAX has looked for
    devices. XLA otherwise makes kernels of its own of products, and writes and reads their results once more."""
    flags, option = os.environ.get("XLA_FLAGS", ""), "--xla_gpu_enable_triton_gemm"
    if option not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {option}=false".strip()
