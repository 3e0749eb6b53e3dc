"""A process of two: it saves, cannot read the other one's files of the last checkpoint or its own, and goes on."""

import sys
import time
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

from vivit_jax.checkpoints.training import Checkpoints, abstract


def main(workdir: Path, port: str, process: int) -> None:
    jax.distributed.initialize(f"localhost:{port}", 2, process)
    sharding = NamedSharding(jax.make_mesh((2,), ("fsdp",)), PartitionSpec("fsdp"))
    values = np.random.default_rng(0).normal(size=(2, 4096)).astype(np.float32)

    def state(step: int) -> dict[str, jax.Array]:
        return {"x": jax.make_array_from_callback(values.shape, sharding, lambda at: values[at] * step)}

    first = Checkpoints(workdir, 3)
    for step in (2, 4):
        first.save(step, state(step), {"saved": step})
    first.close()
    if process == 0:
        for path in (workdir / "checkpoints" / "4" / "state" / "ocdbt.process_1" / "d").iterdir():
            path.write_bytes(path.read_bytes()[:1000])
        rename = Path.rename
        Path.rename = lambda *paths: (time.sleep(1), rename(*paths))  # as on a disk that is far away
    multihost_utils.sync_global_devices("damaged")
    checkpoints = Checkpoints(workdir, 3)
    step, restored, data = checkpoints.restore_latest(abstract(state(0), {"x": sharding}))
    np.testing.assert_array_equal(restored["x"].addressable_data(0), values[process : process + 1] * step)
    print(f"process {process} of {data} goes on from {step}, the last is {checkpoints.latest_step()}")
    checkpoints.save(4, state(4), {"saved": 4})
    checkpoints.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
