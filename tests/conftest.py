"""Eight simulated CPU devices, exact matrix products, and a compiler that does not spend time on speed."""

import os

import jax
import pytest
from jaxtyping import install_import_hook

if not os.environ.get("JAX_PLATFORMS", "").startswith("cuda"):  # as for tests/test_gpu.py
    # Read when the first array is made, which is later, and by the commands that tests start.
    os.environ["XLA_FLAGS"] = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    if jax.__version_info__ < (0, 11):  # which ends the process for an option that it does not know
        os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"  # with them, compiling takes twice as long
    jax.config.update("jax_num_cpu_devices", 8)
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_default_matmul_precision", "highest")
else:
    os.environ["XLA_FLAGS"] = "--xla_gpu_autotune_level=0"  # which would take most of the time
install_import_hook("vivit_jax.models", "beartype.beartype")  # shapes in signatures are checked


@pytest.fixture(scope="session", autouse=True)
def compiled(tmp_path_factory, worker_id):
    """Programs are compiled once for all test processes and the commands that they start."""
    root = tmp_path_factory.getbasetemp()
    folder = str((root if worker_id == "master" else root.parent) / "compiled")
    os.environ |= {"JAX_COMPILATION_CACHE_DIR": folder, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.3"}
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory, worker_id):
    """A small ingested dataset, one for all test processes."""
    import runs  # after the hook

    root = tmp_path_factory.getbasetemp()
    return runs.dataset((root if worker_id == "master" else root.parent) / "dataset")
