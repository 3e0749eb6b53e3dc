"""The instructions of a compiled module's text, and the bytes that each moves."""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f32": 4, "s32": 4, "u32": 4, "f64": 8}
KERNEL = 'custom_call_target="tpu_custom_call"'
NAMES = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "async-done"}  # give what is there a name
ELSEWHERE = {"while", "call", "conditional", "async-start"}  # do what another computation says
SLICES = {"slice", "dynamic-slice"}

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{\s*$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\(([^)]*)")
_OPERAND = re.compile(r"%?([\w.\-]+)\s*(?:,|$)")
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\](\{[^}]*\})?")
_CALLED = re.compile(r" calls=%?([\w.\-]+)")


class Instruction(NamedTuple):
    name: str
    shape: str
    op: str
    operands: list[str]
    text: str  # the line
    root: bool


Computation = dict[str, Instruction]  # by name


def parse(text: str) -> tuple[dict[str, Computation], str]:
    """The computations of a module, and the name of its entry."""
    computations: dict[str, Computation] = {}
    entry, lines = "", {}
    for line in text.splitlines():
        if head := _COMPUTATION.match(line):
            lines = computations.setdefault(head[2], {})
            entry = head[2] if head[1] else entry
        elif found := _INSTRUCTION.match(line):
            root, name, shape, op, operands = found.groups()
            lines[name] = Instruction(name, shape, op, _OPERAND.findall(operands), line, bool(root))
    return computations, entry


def sizes(shape: str, only_hbm: bool = False) -> list[int]:
    """Bytes of an array, or of each in a tuple; `only_hbm`: of those in the main memory, not on the chip (as S(1))."""
    return [
        BYTES.get(kind, 4) * math.prod(int(n) for n in dims.split(",") if n)
        for kind, dims, layout in _ARRAY.findall(shape)
        if not (only_hbm and "S(" in layout)
    ]


def moved(i: Instruction, within: Computation, computations: dict[str, Computation], only_hbm: bool = False) -> int:
    """Bytes read and written: each operand once and each result once; of what is sliced, the slice."""
    if i.op in NAMES | ELSEWHERE or i.op.endswith("-start") or (i.op == "custom-call" and KERNEL not in i.text):
        return 0
    operands = [within[name] for name in i.operands if name in within]
    if i.op.endswith("-done"):  # its operand's shape has all that went in beside what comes out
        operands = [within[name] for start in operands for name in start.operands[:1] if name in within]
    if i.op == "fusion" and (called := _CALLED.search(i.text)):
        inner = computations.get(called[1], {})
        read = sum(_read(x, inner, only_hbm) for x in inner.values() if x.op == "parameter")
        return read + sum(_written(x, inner, only_hbm) for x in inner.values() if x.root)
    if i.op in SLICES or i.op.endswith("-done"):
        return sum(sizes(i.shape)) * sum(bool(sizes(x.shape, only_hbm)) for x in (i, *operands[:1]))
    if i.op == "dynamic-update-slice":
        return 2 * sum(sizes(operands[1].shape, only_hbm))
    return sum(sum(sizes(x.shape, only_hbm)) for x in (*operands, i))


def _read(parameter: Instruction, inner: Computation, only_hbm: bool) -> int:
    """What a fusion reads of an operand: slices, if that is all it is for; nothing of what it updates in place."""
    whole, slices = sum(sizes(parameter.shape, only_hbm)), 0
    for use, operand in _uses(parameter.name, inner):
        if use.op in SLICES:
            slices += sum(sizes(use.shape))
        elif use.op != "dynamic-update-slice" or use.operands[0] != operand:
            return whole
    return min(whole, slices)


def _uses(name: str, inner: Computation) -> Iterator[tuple[Instruction, str]]:
    for use in inner.values():
        if name in use.operands and use.op == "bitcast":
            yield from _uses(use.name, inner)
        elif name in use.operands:
            yield use, name


def _written(result: Instruction, inner: Computation, only_hbm: bool) -> int:
    """What a fusion writes of a result: what changes, if it updates an operand in place."""
    if result.op == "tuple":
        return sum(_written(inner[name], inner, only_hbm) for name in result.operands)
    made = inner[result.operands[0]] if result.op == "bitcast" else result
    changed = inner[made.operands[1]] if made.op == "dynamic-update-slice" else result
    return min(sum(sizes(result.shape, only_hbm)), sum(sizes(changed.shape)))
