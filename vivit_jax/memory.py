"""Memory that is freed is kept, for the next batch or step to take again."""

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_NEVER = -1  # as a size: the largest there is


def keep_memory() -> None:
    """Lets glibc keep what is freed. Records and batches are megabytes, the temporaries of a training step on CPUs
    gigabytes, which it would give back to the system, and take again page by page, every time.

    Other C libraries are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD):
            mallopt(parameter, _NEVER)


def compute_in_kept_memory() -> None:
    """`keep_memory` for what JAX computes on CPUs as well; without effect once JAX has looked for devices.

    Computations on one CPU device then run in the thread that asks for them, not in one of JAX's own: only for the main
    thread does glibc keep pieces above 64 MB, and there few small ones get between them.
    """
    import jax

    jax.config.update("jax_cpu_enable_async_dispatch", False)
    keep_memory()
