"""A worker that crashes, hangs or fails costs its own item alone."""

import os
import signal
import time

import pytest

from vivit_jax.data import workers


def work(item):
    if item == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if item == "hang":
        time.sleep(60)
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


def test_nothing_to_do():
    assert list(workers.run(work, [], 2, 1.0)) == []
