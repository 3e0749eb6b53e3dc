"""What a compiled TPU module says of itself: the compiler's estimate of its cycles, its collectives, its kernels."""

import math
import re
from collections import Counter
from dataclasses import dataclass, field

BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f32": 4, "s32": 4, "u32": 4, "f64": 8}
KINDS = "all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute"

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{\s*$")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_COLLECTIVE = re.compile(rf"= (.*?) ({KINDS})(-start)?\(")
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")
_WHILE = re.compile(r" while\(.*condition=%?([\w.\-]+), body=%?([\w.\-]+)")
_CALLED = re.compile(
    r"(?:true_computation|false_computation|to_apply|calls|branch_computations)=\{?(%?[\w.\-]+(?:, *%?[\w.\-]+)*)"
)
_CONSTANT = re.compile(r"%?([\w.\-]+) = s32\[\].*constant\((\d+)\)")


@dataclass
class Module:
    """Sums over a module, loops as often as they run."""

    cycles: int = 0  # the compiler's estimate
    kernels: int = 0  # calls of custom kernels, which carry no estimate
    unknown_loops: int = 0  # loops without a constant length, counted once
    collectives: Counter[str] = field(default_factory=Counter)  # how often each kind is run
    collective_bytes: Counter[str] = field(default_factory=Counter)  # of what arrives at a device


def read(text: str) -> Module:
    """Walks an optimized module from its entry."""
    computations, entry = _computations(text)
    module = Module()

    def walk(name: str, times: int) -> None:
        for line in computations.get(name, ()):
            if cycles := _CYCLES.search(line):
                module.cycles += times * int(cycles[1])
            module.kernels += times * ('custom_call_target="tpu_custom_call"' in line)
            if found := _COLLECTIVE.search(line):
                module.collectives[found[2]] += times
                module.collective_bytes[found[2]] += times * _received(found[1], bool(found[3]))
            if loop := _WHILE.search(line):
                length = _length(computations.get(loop[1], ()))
                module.unknown_loops += length is None
                walk(loop[2], times * (length or 1))
            elif re.search(r" (call|conditional|async-start)\(", line) and (called := _CALLED.search(line)):
                for inner in called[1].split(","):
                    walk(inner.strip().lstrip("%"), times)

    walk(entry, 1)
    return module


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    computations, entry, lines = {}, "", []
    for line in text.splitlines():
        if head := _COMPUTATION.match(line):
            lines = computations.setdefault(head[2], [])
            entry = head[2] if head[1] else entry
        elif line[:1].isspace():
            lines.append(line)
    return computations, entry


def _length(condition) -> int | None:
    """How often a loop runs: the constant that its condition compares with."""
    constants = [int(found[2]) for line in condition if (found := _CONSTANT.search(line))]
    return max(constants, default=None)


def _received(shapes: str, asynchronous: bool) -> int:
    """Bytes of a collective's result; an asynchronous one's shape holds its operands as well."""
    sizes = [
        BYTES.get(kind, 4) * math.prod(int(n) for n in dims.split(",") if n) for kind, dims in _ARRAY.findall(shapes)
    ]
    return max(sizes, default=0) if asynchronous else sum(sizes)
