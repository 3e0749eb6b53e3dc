"""--mode=plan: what a step costs on a TPU slice that is not there, asked of the compiler that a run there would use."""

import math
import re
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, cast

import jax
import jax.numpy as jnp

from vivit_jax.config import Config
from vivit_jax.data.datasets import known_classes
from vivit_jax.errors import UserError, first_line
from vivit_jax.evaluation.multiview import Evaluator
from vivit_jax.planning import hlo
from vivit_jax.planning.slices import CHIPS, Chip, slice_devices
from vivit_jax.summary import cost
from vivit_jax.training.program import Program, assemble
from vivit_jax.training.sharding import clip_sharding

Step = Literal["train", "evaluation"]


@dataclass(frozen=True)
class Plan:
    """One step, compiled for a slice. Bytes are of one device; cycles are the compiler's estimate, no measurement."""

    topology: str
    chips: int
    devices: int
    step: Step
    batch_size: int
    mesh: dict[str, int]
    memory: dict[str, int]  # parameters, optimizer, batch, temporaries
    fits: bool
    multiply_adds: int  # of one clip, forward
    module: hlo.Module
    libtpu: str  # its version
    text: str = field(default="", repr=False)  # of the optimized module

    @property
    def chip(self) -> Chip:
        return CHIPS[self.topology.split(":")[0]]

    @property
    def seconds(self) -> float | None:
        """Of the compiler's cycles; collectives and custom kernels are not among them."""
        clock = self.chip.clock
        return self.module.cycles / clock if self.fits and clock and self.module.cycles else None

    @property
    def exchange_seconds(self) -> float:
        """The least that the collectives' bytes take on the interconnect, if nothing hides it."""
        return self.module.collective_bytes.total() / self.chip.interconnect

    @property
    def clips_per_second(self) -> float | None:
        return self.batch_size / self.seconds if self.seconds else None

    @property
    def utilization(self) -> float | None:
        """Of the chips' peak: 2 operations for each multiply-add, three times as many with the backward pass."""
        operations = {"train": 6, "evaluation": 2}[self.step] * self.multiply_adds
        rate = self.clips_per_second
        return operations * rate / (self.devices * self.chip.flops) if rate else None

    def as_dict(self) -> dict[str, Any]:
        """What `--plan_json` writes."""
        per_chip = self.devices // self.chips
        return {
            "topology": self.topology,
            "chips": self.chips,
            "step": self.step,
            "batch_size": self.batch_size,
            "mesh": self.mesh,
            "fits": self.fits,
            "hbm_bytes_per_chip": per_chip * sum(self.memory.values()),
            "hbm_limit_bytes": int(per_chip * self.chip.hbm * 2**30),
            "hbm_bytes_by_kind": {kind: per_chip * size for kind, size in self.memory.items()},
            "multiply_adds_per_clip": self.multiply_adds,
            "bytes_accessed_per_step": self.module.bytes_accessed,
            "hbm_traffic_bytes_per_step": self.module.hbm_traffic,
            "estimated_cycles_per_step": self.module.cycles,
            "estimated_clips_per_second": self.clips_per_second,
            "estimated_utilization": self.utilization,
            "collectives": {
                kind: {"count": count, "bytes": self.module.collective_bytes[kind]}
                for kind, count in self.module.collectives.items()
            },
            "least_collective_seconds": self.exchange_seconds,
            "custom_kernels_without_estimate": self.module.kernels,
            "loops_of_unknown_length": self.module.unknown_loops,
            "jax": jax.__version__,
            "libtpu": self.libtpu,
        }


def make_plan(config: Config, topology: str, step: Step = "train") -> Plan:
    """Compiles the real step of `config` for a slice.

    Raises:
      UserError: there is no such slice, or the config's mesh or batch does not fit on it.
    """
    devices = slice_devices(topology)
    if config.augment.flip is None:  # which the names of the classes decide; it costs the same
        config = replace(config, augment=replace(config.augment, flip=0.5))
    model = config.model.architecture(known_classes(config.data) or 1)
    size = getattr(config, step).batch_size
    program = assemble(config, model, 100 * size, devices)
    state, batch = program.abstract_state(), abstract_batch(program, step)
    if step == "train":
        lowered = program.train_step().lower(state, batch)
    else:
        state = {"params": state["params"]}
        evaluator = Evaluator(config, program.graph, program.mesh, state["params"], Path())
        lowered = evaluator.over.step.lower(state["params"], batch)
    memory = {"parameters": state["params"], "optimizer": state.get("opt_state"), "average": state.get("ema")}
    memory = {kind: local_bytes(part) for kind, part in (memory | {"batch": batch}).items() if part is not None}
    chips = math.prod(int(n) for n in topology.partition(":")[2].split("x"))
    views = config.evaluation.clips * config.evaluation.crops if step == "evaluation" else 1
    facts = topology, chips, len(devices), step, size, dict(program.mesh.shape)
    adds = views * cost(model)[1]
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        wanted = _wanted(error)
        memory["temporaries"] = max(0, wanted - sum(memory.values()))
        return Plan(*facts, memory, False, adds, hlo.Module(), metadata.version("libtpu"))
    text, analysis = compiled.as_text() or "", cast(Any, compiled.memory_analysis())
    memory["temporaries"] = int(analysis.temp_size_in_bytes) + int(analysis.generated_code_size_in_bytes)
    return Plan(*facts, memory, True, adds, hlo.read(text), metadata.version("libtpu"), text)


def abstract_batch(program: Program, step: Step) -> dict[str, Any]:
    """The shapes of a batch of `train_batches` or `evaluation_batches`, and where they lie."""
    config, model = program.config, program.model
    evaluation, size = config.evaluation, getattr(config, step).batch_size
    views = (evaluation.clips * evaluation.crops,) if step == "evaluation" else ()

    def array(name: str, dtype: Any, *shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((size, *shape), dtype, sharding=clip_sharding(program.mesh, name, 1 + len(shape)))

    labels: Any = {head: array("label", jnp.int32) for head in model.heads}
    return {
        "video": array("video", jnp.uint8, *views, model.num_frames, *model.image_size, 3),
        "label": labels if isinstance(model.num_classes, tuple) else labels["head"],
        "weight": array("weight", jnp.float32),
        "fault": array("fault", jnp.int32),
    }


def local_bytes(tree: Any) -> int:
    """Of one device's part."""
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def _wanted(error: Exception) -> int:
    """Bytes that did not fit, from the compiler's error; anything else that it has to say is raised."""
    message = str(error)
    found = re.search(r"Used ([\d.]+)([MGT]) of|\(([\d.]+)([MGT])\) exceeds", message)
    if "RESOURCE_EXHAUSTED" not in message or not found:
        raise UserError(f"--mode=plan: the compiler fails: {first_line(error)}")
    number, unit = (found[1], found[2]) if found[1] else (found[3], found[4])
    return int(float(number) * {"M": 2**20, "G": 2**30, "T": 2**40}[unit])
