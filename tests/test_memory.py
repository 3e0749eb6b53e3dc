"""What a step on a CPU has freed, the next one takes again without asking the system."""

import platform
import statistics
import subprocess
import sys

STEPS = """
import resource, sys
if "keep" in sys.argv:
    from vivit_jax.memory import compute_in_kept_memory
    compute_in_kept_memory()
import jax, jax.numpy as jnp
step = jax.jit(lambda x: jnp.tanh(x) @ x[:, :32])
x = jax.random.normal(jax.random.key(0), (4000, 4000))
for _ in range(12):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    jax.block_until_ready(step(x))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(*arguments: str) -> list[int]:
    command = [sys.executable, "-c", STEPS, *arguments]
    return [int(line) for line in subprocess.check_output(command, text=True).split()]


def test_temporaries_are_kept_from_step_to_step():
    pages = 4000 * 4000 * 4 // 4096
    plain, kept = page_faults(), page_faults("keep")
    assert len(plain) == len(kept) == 12
    if platform.libc_ver()[0] == "glibc":  # other C libraries are left as they are
        assert statistics.median(plain[6:]) > pages // 2  # otherwise there is nothing to keep
        assert statistics.median(kept[6:]) < pages // 100
