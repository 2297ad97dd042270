import itertools

from mmjax.plan import hlo, work
from tests.plan.conftest import TRIPS, WIDTH


def total(module, cost):
  return sum(
    e.times * cost(module, e.computation, e.instruction)
    for e in hlo.walk(module)
  )


def test_products_of_a_loop_count_in_every_trip(program):
  assert total(program, work.flops) == TRIPS * 2 * WIDTH**3


# A product of 4 x 3 pairs of matrices, as the compiler of TPUs writes it.
BATCHED = """\
ENTRY %main (a: bf16[4,3,8,16], b: bf16[4,3,16,5]) -> bf16[4,3,8,5] {
  %a = bf16[4,3,8,16]{3,2,1,0} parameter(0)
  %b = bf16[4,3,16,5]{3,2,1,0} parameter(1)
  ROOT %c = bf16[4,3,8,5]{3,2,1,0} convolution(%a, %b), window={size=4x3 stride=4x3 pad=3_3x2_2 lhs_dilate=3x2 rhs_reversal=1x1}, dim_labels=01bf_01io->01bf
}
"""  # noqa: E501
IMAGE = """\
ENTRY %main (a: f32[2,7,6,3], b: f32[3,2,3,4]) -> f32[2,4,6,4] {
  %a = f32[2,7,6,3]{3,2,1,0} parameter(0)
  %b = f32[3,2,3,4]{3,2,1,0} parameter(1)
  ROOT %c = f32[2,4,6,4]{3,2,1,0} convolution(%a, %b), window={size=3x2 stride=2x1 pad=1_1x0_1}, dim_labels=b01f_01io->b01f
}
"""  # noqa: E501


def test_a_batched_product_as_a_convolution():
  assert total(hlo.parse(BATCHED), work.flops) == 4 * 3 * 2 * 8 * 16 * 5


def test_a_convolution_counts_no_padding():
  inside = 0
  for row, column in itertools.product(range(4), range(6)):
    for i, j in itertools.product(range(3), range(2)):
      y, x = 2 * row + i - 1, column + j
      inside += 0 <= y < 7 and 0 <= x < 6

  # Multiply-adds: 2 examples, 3 channels in, 4 out.
  assert total(hlo.parse(IMAGE), work.flops) == 2 * inside * 2 * 3 * 4


# One layer's rows are read of a stack, one layer is written into a stack.
SLICED = """\
%inner (p0: f32[6,256], p1: s32[]) -> f32[1,256] {
  %p0 = f32[6,256]{1,0} parameter(0)
  %p1 = s32[] parameter(1)
  ROOT %d = f32[1,256]{1,0} dynamic-slice(%p0, %p1)
}

%nested (q0: s32[], q1: f32[6,256]) -> f32[256] {
  %q0 = s32[] parameter(0)
  %q1 = f32[6,256]{1,0} parameter(1)
  %f = f32[1,256]{1,0} fusion(%q1, %q0), kind=kLoop, calls=%inner
  ROOT %b = f32[256]{0} bitcast(%f)
}

%read (p0: f32[6,256], p1: s32[]) -> f32[256] {
  %p0 = f32[6,256]{1,0} parameter(0)
  %p1 = s32[] parameter(1)
  %d = f32[1,256]{1,0} dynamic-slice(%p0, %p1), dynamic_slice_sizes={1,256}
  ROOT %b = f32[256]{0} bitcast(%d)
}

%write (p0: f32[6,256], p1: f32[256], p2: s32[]) -> f32[6,256] {
  %p0 = f32[6,256]{1,0} parameter(0)
  %p1 = f32[256]{0} parameter(1)
  %p2 = s32[] parameter(2)
  %b = f32[1,256]{1,0} bitcast(%p1)
  ROOT %u = f32[6,256]{1,0} dynamic-update-slice(%p0, %b, %p2)
}

ENTRY %main (stack: f32[6,256], i: s32[]) -> f32[6,256] {
  %stack = f32[6,256]{1,0} parameter(0)
  %i = s32[]{:S(2)} parameter(1)
  %one = f32[256]{0} fusion(%stack, %i), kind=kLoop, calls=%read
  %two = f32[256]{0} fusion(%i, %stack), kind=kOutput, calls=%nested
  %near = f32[256]{0:S(1)} tanh(%one)
  %far = f32[256]{0} negate(%near)
  ROOT %out = f32[6,256]{1,0} fusion(%stack, %far, %i), kind=kLoop, calls=%write
}
"""


def test_traffic_is_of_slices_and_of_the_main_memory_only():
  module = hlo.parse(SLICED)
  cost = {
    e.instruction.name: work.traffic(module, e.computation, e.instruction)
    for e in hlo.walk(module)
  }

  row = 256 * 4
  assert cost == {
    "stack": 0,
    "i": 0,
    "one": 2 * row,  # Reads a slice, writes it.
    "two": 2 * row,
    "near": row,  # Its result stays on the chip's core.
    "far": row,
    "out": row + 2 * row,  # Reads the update, writes it where it was read.
  }


# As jax writes `batch_group_count=2`: each half of the 4 examples meets half of
# the 6 channels that come out, so the result is of 2 examples.
GROUPS = """\
ENTRY %main (a: f32[4,8,8,3], b: f32[3,3,3,6]) -> f32[2,6,6,6] {
  %a = f32[4,8,8,3]{3,2,1,0} parameter(0)
  %b = f32[3,3,3,6]{3,2,1,0} parameter(1)
  ROOT %c = f32[2,6,6,6]{3,2,1,0} convolution(%a, %b), window={size=3x3}, dim_labels=b01f_01io->b01f, batch_group_count=2
}
"""  # noqa: E501
DILATED = """\
ENTRY %main (a: f32[1,9,2], b: f32[3,2,4]) -> f32[1,7,4] {
  %a = f32[1,9,2]{2,1,0} parameter(0)
  %b = f32[3,2,4]{2,1,0} parameter(1)
  ROOT %c = f32[1,7,4]{2,1,0} convolution(%a, %b), window={size=3 pad=1_1 rhs_dilate=2}, dim_labels=b0f_0io->b0f
}
"""  # noqa: E501


def test_groups_of_a_convolution_count_as_its_results_do():
  # XLA's cost analysis of this program says 23328 too.
  each = 3 * 3 * 3  # Multiply-adds of one number of the result.
  assert total(hlo.parse(GROUPS), work.flops) == 2 * (2 * 6 * 6 * 6) * each


def test_a_dilated_kernel_meets_what_lies_apart():
  # Outputs 0 and 6 have one of their three entries in the padding.
  meetings = 7 * 3 - 2
  assert total(hlo.parse(DILATED), work.flops) == 2 * meetings * 2 * 4


def test_products_within_a_fusion_are_added():
  text = """\
%both (p0: f32[5,7], p1: f32[7,3], p2: f32[7,2]) -> (f32[5,3], f32[5,2]) {
  %p0 = f32[5,7]{1,0} parameter(0)
  %p1 = f32[7,3]{1,0} parameter(1)
  %p2 = f32[7,2]{1,0} parameter(2)
  %one = f32[5,3]{1,0} dot(%p0, %p1), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  %two = f32[5,2]{1,0} dot(%p0, %p2), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT %out = (f32[5,3]{1,0}, f32[5,2]{1,0}) tuple(%one, %two)
}

ENTRY %main (a: f32[5,7], b: f32[7,3], c: f32[7,2]) -> (f32[5,3], f32[5,2]) {
  %a = f32[5,7]{1,0} parameter(0)
  %b = f32[7,3]{1,0} parameter(1)
  %c = f32[7,2]{1,0} parameter(2)
  ROOT %f = (f32[5,3]{1,0}, f32[5,2]{1,0}) fusion(%a, %b, %c), kind=kLoop, calls=%both
}
"""  # noqa: E501
  assert total(hlo.parse(text), work.flops) == 2 * 5 * 7 * (3 + 2)


# Outside of fusions, and a fusion of two results of which one is an update.
PLAIN = """\
%both (p0: f32[10,100], p1: f32[1,100], p2: s32[]) -> (f32[10,100], f32[1,100]) {
  %p0 = f32[10,100]{1,0} parameter(0)
  %p1 = f32[1,100]{1,0} parameter(1)
  %p2 = s32[] parameter(2)
  %u = f32[10,100]{1,0} dynamic-update-slice(%p0, %p1, %p2, %p2)
  %n = f32[1,100]{1,0} negate(%p1)
  ROOT %t = (f32[10,100]{1,0}, f32[1,100]{1,0}) tuple(%u, %n)
}

ENTRY %main (a: f32[10,100], r: f32[1,100], i: s32[]) -> f32[2,100] {
  %a = f32[10,100]{1,0} parameter(0)
  %r = f32[1,100]{1,0} parameter(1)
  %i = s32[]{:S(2)} parameter(2)
  %update = f32[10,100]{1,0} dynamic-update-slice(%a, %r, %i, %i)
  %start = (f32[10,100]{1,0:S(1)}, f32[10,100]{1,0}, u32[]{:S(2)}) copy-start(%a)
  %done = f32[10,100]{1,0:S(1)} copy-done(%start)
  %buffer = f32[10,100]{1,0} custom-call(), custom_call_target="AllocateBuffer"
  %pair = (f32[10,100]{1,0}, f32[1,100]{1,0}) fusion(%buffer, %r, %i), kind=kLoop, calls=%both
  %all = f32[10,100]{1,0} add(%a, %update)
  ROOT %slice = f32[2,100]{1,0} slice(%a), slice={[0:2], [0:100]}
}
"""  # noqa: E501


def test_traffic_of_updates_slices_copies_and_of_several_results():
  module = hlo.parse(PLAIN)
  cost = {
    e.instruction.name: work.traffic(module, e.computation, e.instruction)
    for e in hlo.walk(module)
  }

  row = 100 * 4
  assert cost == {
    "a": 0,
    "r": 0,
    "i": 0,
    "update": 2 * row,
    "start": 10 * row,  # Read; it is written to the chip's core.
    "done": 0,
    "buffer": 0,
    # Reads the row; updates a row of the first, and writes the second.
    "pair": row + 2 * row + row,
    "all": 3 * 10 * row,
    "slice": 2 * 2 * row,
  }
