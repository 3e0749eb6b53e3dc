"""What is read off the text of a compiled module."""

import jax
import jax.numpy as jnp
import pytest

from vivit_jax.planning import hlo

MODULE = """HloModule step

%body.1 (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %fusion.1 = f32[8]{0} fusion(%p), kind=kLoop, calls=%inner, backend_config={"estimated_cycles":"10"}
  %all-gather.1 = bf16[16,64]{1,0} all-gather(%fusion.1), dimensions={0}
  %kernel = f32[8]{0} custom-call(%p), custom_call_target="tpu_custom_call"
}

%condition.1 (p: (s32[], f32[8])) -> pred[] {
  %constant.9 = s32[]{:T(128)} constant(12)
  %compare.1 = pred[] compare(%i, %constant.9), direction=LT
}

%branch.1 (p: f32[8]) -> f32[8] {
  %fusion.7 = f32[8]{0} fusion(%p), kind=kLoop, calls=%inner, backend_config={"estimated_cycles":"5"}
}

%inner (p: f32[8]) -> f32[8] {
  %add.1 = f32[8]{0} add(%p, %p), backend_config={"estimated_cycles":"1000"}
}

ENTRY %main.1 (x: f32[8]) -> f32[8] {
  %fusion.2 = f32[8]{0} fusion(%x), kind=kLoop, calls=%inner, backend_config={"estimated_cycles":"7"}
  %while.1 = (s32[], f32[8]) while(%t), condition=%condition.1, body=%body.1
  %call.1 = f32[8]{0} call(%x), to_apply=%branch.1
  %all-reduce.1 = (f32[100]{0}, bf16[10,10]{1,0:T(8,128)(2,1)}) all-reduce(%a, %b), to_apply=%sum
  %all-to-all.1 = (u8[4]{0}, u8[4]{0}) all-to-all-start(%x)
  %done = u8[4]{0} all-to-all-done(%all-to-all.1)
}
"""

IN_PARTS = """HloModule parts

%body (p: (s32[], f32[10,10], f32[10])) -> (s32[], f32[10,10], f32[10]) {
  %rows = f32[10,10]{1,0} get-tuple-element(%p), index=1
  %row = f32[10]{0:S(1)} fusion(%rows), kind=kLoop, calls=%slice
}

%slice (rows: f32[10,10]) -> f32[10] {
  %rows.1 = f32[10,10]{1,0} parameter(0)
  %view = f32[1,10,10]{2,1,0} bitcast(%rows.1)
  ROOT %row.1 = f32[10]{0:S(1)} dynamic-slice(%view)
}

%update (rows: f32[10,10], row: f32[10]) -> f32[10,10] {
  %rows.2 = f32[10,10]{1,0} parameter(0)
  %row.2 = f32[10]{0:S(1)} parameter(1)
  ROOT %rows.3 = f32[10,10]{1,0} dynamic-update-slice(%rows.2, %row.2)
}

%condition (p: (s32[], f32[10,10], f32[10])) -> pred[] {
  %ten = s32[] constant(10)
}

ENTRY %main (x: f32[10,10]) -> f32[10,10] {
  %x = f32[10,10]{1,0:T(8,128)} parameter(0)
  %copy-start = (f32[10,10]{1,0:S(1)}, f32[10,10]{1,0}, u32[]{:S(2)}) copy-start(%x)
  %copy-done = f32[10,10]{1,0:T(8,128)S(1)} copy-done(%copy-start)
  %slice-start = ((f32[10,10]{1,0}), f32[10]{0:S(1)}, s32[]{:S(2)}) slice-start(%x), slice={[0:1], [0:10]}
  %slice-done = f32[10]{0:S(1)} slice-done(%slice-start)
  %loop = (s32[], f32[10,10], f32[10]) while(%t), condition=%condition, body=%body
  %changed = f32[10,10]{1,0} fusion(%x, %slice-done), kind=kLoop, calls=%update
  %seen = f32[10]{0:S(1)} custom-call(%slice-done), custom_call_target="SliceBitcast"
}
"""


def test_loops_count_as_often_as_they_run():
    module = hlo.read(MODULE)
    assert module.cycles == 7 + 12 * 10 + 5 and module.kernels == 12 and module.unknown_loops == 0
    assert module.collectives == {"all-gather": 12, "all-reduce": 1, "all-to-all": 1}
    assert module.collective_bytes == {"all-gather": 12 * 16 * 64 * 2, "all-reduce": 600, "all-to-all": 4}
    assert hlo.read(MODULE.replace("s32[]{:T(128)} constant", "u32[]{:T(128)} constant")) == module
    assert hlo.read(MODULE.replace("constant(12)", "parameter(0)")).unknown_loops == 1


def test_bytes_are_of_what_is_read_and_written_as_often():
    """Of a stack that is scanned as of one that is not; XLA's own count has the body of a loop once."""
    x, stack = jax.random.normal(jax.random.key(0), (64, 64)), jax.random.normal(jax.random.key(1), (10, 64, 64))

    def layer(x, kernel):
        return jnp.tanh(x @ kernel), x.sum()

    def unrolled(x, stack):
        return jax.lax.scan(layer, x, stack, unroll=True)

    def scanned(x, stack):
        return jax.lax.scan(layer, x, stack)

    seen, theirs = {}, {}
    for run in (unrolled, scanned):
        compiled = jax.jit(run).lower(x, stack).compile()
        seen[run], theirs[run] = hlo.read(compiled.as_text()), compiled.cost_analysis()["bytes accessed"]
    least = 10 * 3 * x.nbytes  # of each product: two factors and the result
    assert least < seen[scanned].bytes_accessed < 4 * least and theirs[scanned] < least
    assert seen[scanned].bytes_accessed == pytest.approx(seen[unrolled].bytes_accessed, rel=0.4)
    assert seen[unrolled].bytes_accessed == pytest.approx(theirs[unrolled], rel=0.3)


def test_what_stays_on_the_chip_is_no_hbm_traffic():
    module = hlo.read(IN_PARTS)
    assert module.bytes_accessed == 2 * 400 + 2 * 40 + 10 * (2 * 40) + 2 * 40
    assert module.hbm_traffic == 400 + 40 + 10 * 40 + 40
