import types

import pytest

from mmjax.plan import collectives, hlo, roofline
from mmjax.plan.topologies import Chip
from tests.plan.conftest import MESH, TRIPS, WIDTH

CHIP = Chip("toy", 1e6, 1e9, 1e12, 1e9, 1e7, 2, 4)


def test_a_step_is_the_sum_of_the_slowest_of_each_part(program):
  found = collectives.find(program, MESH)
  slow = roofline.of(program, found, CHIP, lambda one: 1e3)
  fast = roofline.of(program, found, CHIP, lambda one: 1e12)

  products = TRIPS * 2 * WIDTH**3 / CHIP.flops
  sent = sum(c.sent_a_step for c in found) / 1e3
  assert fast.total("compute") == pytest.approx(products)
  assert fast.secs == pytest.approx(products, rel=1e-3)  # Plenty of memory.
  assert fast.bound == "compute"
  assert slow.total("ici") == pytest.approx(sent)
  assert slow.secs == pytest.approx(sent, rel=1e-3)
  assert slow.bound == "ici"


def test_operations_do_not_hide_each_others_traffic():
  text = """\
ENTRY %main (a: f32[10,10]) -> f32[10,10] {
  %a = f32[10,10]{1,0} parameter(0)
  %p = f32[10,10]{1,0:S(1)} dot(%a, %a), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT %n = f32[10,10]{1,0} negate(%p)
}
"""  # noqa: E501
  chip = Chip("toy", 2000.0, 1e9, 400.0, 1.0, 1.0)

  found = roofline.of(hlo.parse(text), [], chip, lambda one: 1.0)

  # The product: 1 s, as its two reads take 2 s; the rest writes for 1 s.
  assert found.total("compute") == pytest.approx(1.0)
  assert found.secs == pytest.approx(3.0)
  assert found.bound == "hbm"


def devices(rows, columns):
  return [
    types.SimpleNamespace(coords=(y, x, 0))
    for y in range(rows)
    for x in range(columns)
  ]


def test_rings_have_two_links_of_each_dimension_and_open_ones_one():
  everyone = devices(4, 6)  # Rings along the first: 4 is a multiple of 4.

  def rate(group, network="ICI"):
    return roofline.collective_rate(CHIP, group, everyone, network)

  column = [d for d in everyone if d.coords[1] == 0]
  row = [d for d in everyone if d.coords[0] == 0]
  assert rate(column) == 2 * CHIP.link_rate
  assert rate(column[:2]) == CHIP.link_rate
  assert rate(row) == CHIP.link_rate
  assert rate(everyone) == 3 * CHIP.link_rate
  assert rate(everyone, "DCN") == CHIP.dcn_rate


def test_utilisation_is_of_needed_products():
  assert roofline.mfu(8e6, 2.0, 8, CHIP) == 0.5


def part(name, operations, ici, dcn, compute=1.0, hbm=2.0):
  return roofline.Part(name, 0.0, 0.0, compute, hbm, operations, ici, dcn)


def test_a_part_waits_for_its_longest_and_a_step_for_most_of_its_parts():
  parts = (
    part("hidden", 5.0, 4.0, 3.0),
    part("between chips", 5.0, 6.0, 3.0),
    part("between slices", 5.0, 6.0, 8.0),
    part("products", 2.0, 0.0, 0.0, compute=2.0, hbm=1.0),
  )
  assert [p.secs for p in parts] == [5.0, 6.0, 8.0, 2.0]
  assert [p.bound for p in parts] == ["hbm", "ici", "dcn", "compute"]
  found = roofline.Roofline(parts)
  assert found.secs == 5.0 + 6.0 + 8.0 + 2.0
  assert found.bound == "dcn"
  # Two parts of 6 s are more than one of 8.
  assert roofline.Roofline((parts[1], *parts[1:])).bound == "ici"


def test_bytes_between_slices_take_the_time_of_that_network():
  one = collectives.Collective(
    kind="all-reduce",
    axes=("replica",),
    size=2,
    network="DCN",
    bytes=100.0,
    sent=50.0,
    times=4,
    computation="main",
    loop="",
    group=(0, 4),
  )
  module = hlo.parse("ENTRY %main (a: f32[1]) -> f32[1] {\n}\n")
  found = roofline.of(module, [one], CHIP, lambda one: 10.0)
  assert found.total("dcn") == 50.0 * 4 / 10.0
  assert found.total("ici") == 0.0
  assert found.secs == 20.0
