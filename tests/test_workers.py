"""A worker that crashes, hangs or fails costs its own item alone."""

import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vivit_jax.data import workers


def work(item):
    if item == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if item == "hang":
        time.sleep(60)
    if item == "memory":
        return len(bytearray(workers.MEMORY_LIMIT))
    if item == "fail":
        raise ValueError("as asked")
    return item * 2


@pytest.mark.parametrize("num_workers", [1, 3])
def test_every_item_comes_back_once(num_workers):
    items = [1, 2, "crash", 3, "fail", "hang", 4, "crash", 5]
    start = time.monotonic()
    results = list(workers.run(work, items, num_workers, time_limit=2.0))
    assert time.monotonic() - start < 25
    assert sorted(str(item) for item, _, _ in results) == sorted(map(str, items))
    by_item = {str(item): (result, error) for item, result, error in results}
    assert [by_item[str(n)] for n in (1, 2, 3, 4, 5)] == [(2 * n, None) for n in (1, 2, 3, 4, 5)]
    kinds = {name: type(by_item[name][1]) for name in ("crash", "fail", "hang")}
    assert kinds == {"crash": ChildProcessError, "fail": ValueError, "hang": TimeoutError}


def test_leaving_early_ends_the_processes():
    results = workers.run(work, [1, "hang"], 2, time_limit=60.0)
    next(results)
    start = time.monotonic()
    results.close()
    assert time.monotonic() - start < 5


def test_the_garbage_collector_may_end_them(monkeypatch):
    """As after an error whose traceback holds them: in whatever order, each pipe is closed, and once."""
    ignored, open_files = [], len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(sys, "unraisablehook", ignored.append)
    for _ in range(5):
        results = workers.run(work, [1, 2, 3], 2, time_limit=60.0)
        next(results)
        cycle = [results]
        cycle.append(cycle)
        del results, cycle
        gc.collect()
    assert not ignored
    assert len(os.listdir("/proc/self/fd")) <= open_files + 1  # that of the processes' tracker


def test_nothing_to_do():
    assert list(workers.run(work, [], 2, 1.0)) == []


def test_a_call_of_its_own_survives_as_well():
    isolated = workers.Isolated(work, time_limit=2.0)
    assert isolated(3) == (6, None) == isolated(3)
    for item, kind in (("crash", ChildProcessError), ("hang", TimeoutError), ("fail", ValueError)):
        assert type(isolated(item)[1]) is kind and isolated(4) == (8, None)
    isolated.close()


def test_who_asks_for_too_much_memory_gets_none():
    """And the machine goes on as before."""
    ((_, result, error),) = workers.run(work, ["memory"], 1, time_limit=20.0)
    assert result is None and isinstance(error, MemoryError)


def unguarded(tmp_path, program):
    (tmp_path / "unguarded.py").write_text(f"from vivit_jax.data import workers\n{program}\n")
    script = [sys.executable, str(tmp_path / "unguarded.py")]
    here = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.run(script, env=here, capture_output=True, text=True, timeout=60)


def test_a_main_module_needs_no_guard(tmp_path):
    result = unguarded(tmp_path, "print(list(workers.run(len, ['ab'], 1, 5.0)))")
    assert (result.returncode, result.stdout) == (0, "[('ab', 2, None)]\n"), result.stderr


def test_unless_the_function_is_its_own(tmp_path):
    result = unguarded(tmp_path, "def f(x):\n    return x\nlist(workers.run(f, ['ab'], 1, 5.0))")
    assert result.returncode != 0 and "is the main module guarded by __name__?" in result.stderr
