"""What a compiled TPU module says of itself: an estimate of its cycles, its bytes, its collectives."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from vivit_jax.planning.instructions import ELSEWHERE, KERNEL, Instruction, moved, parse, sizes

KINDS = "all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute"

_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_COLLECTIVE = re.compile(rf"({KINDS})(-start)?$")
_LOOP = re.compile(r"condition=%?([\w.\-]+), body=%?([\w.\-]+)")
_CALLED = re.compile(
    r"(?:true_computation|false_computation|to_apply|calls|branch_computations)=\{?(%?[\w.\-]+(?:, *%?[\w.\-]+)*)"
)
_NUMBER = re.compile(r"constant\((\d+)\)")


@dataclass
class Module:
    """Sums over a module, loops as often as they run."""

    cycles: int = 0  # the compiler's estimate
    bytes_accessed: int = 0  # read and written, wherever they are
    hbm_traffic: int = 0  # those from and to HBM
    kernels: int = 0  # calls of custom kernels, which carry no estimate
    unknown_loops: int = 0  # loops without a constant length, counted once
    collectives: Counter[str] = field(default_factory=Counter)  # how often each kind is run
    collective_bytes: Counter[str] = field(default_factory=Counter)  # of what arrives at a device


def read(text: str) -> Module:
    """Walks an optimized module from its entry."""
    computations, entry = parse(text)
    module = Module()

    def walk(name: str, times: int) -> None:
        within = computations.get(name, {})
        for instruction in within.values():
            if cycles := _CYCLES.search(instruction.text):
                module.cycles += times * int(cycles[1])
            module.kernels += times * (KERNEL in instruction.text)
            module.bytes_accessed += times * moved(instruction, within, computations)
            module.hbm_traffic += times * moved(instruction, within, computations, only_hbm=True)
            if found := _COLLECTIVE.match(instruction.op):
                module.collectives[found[1]] += times
                module.collective_bytes[found[1]] += times * _received(instruction.shape, bool(found[2]))
            if instruction.op == "while" and (loop := _LOOP.search(instruction.text)):
                length = _length(computations.get(loop[1], {}).values())
                module.unknown_loops += length is None
                walk(loop[2], times * (length or 1))
            elif instruction.op in ELSEWHERE and (called := _CALLED.search(instruction.text)):
                for inner in called[1].split(","):
                    walk(inner.strip().lstrip("%"), times)

    walk(entry, 1)
    return module


def _length(condition: Iterable[Instruction]) -> int | None:
    """How often a loop runs: the constant that its condition compares with, unsigned where XLA made it of exchanges."""
    numbers = [(i.shape[:5], _NUMBER.search(i.text)) for i in condition if i.op == "constant"]
    for kind in ("s32[]", "u32[]"):
        if lengths := [int(number[1]) for shape, number in numbers if number and shape == kind]:
            return max(lengths)
    return None


def _received(shape: str, asynchronous: bool) -> int:
    """Bytes of a collective's result; an asynchronous one's shape holds its operands as well."""
    return max(sizes(shape), default=0) if asynchronous else sum(sizes(shape))
