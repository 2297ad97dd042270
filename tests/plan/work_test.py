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
