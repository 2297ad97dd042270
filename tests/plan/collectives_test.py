import numpy as np
import pytest

from mmjax.plan import collectives, hlo
from tests.plan.conftest import MESH, TRIPS, WIDTH

SQUARE = WIDTH * WIDTH * 4  # Bytes of float32.


def test_bytes_axes_and_trips_of_each_kind(program):
  found = {c.kind: c for c in collectives.find(program, MESH)}

  # Bytes of the whole array, and of it what a chip of a ring sends.
  expected = {
    "all-gather": (("fsdp",), SQUARE, 3 / 4),
    "all-reduce": (("data",), SQUARE / 4, 2 * 1 / 2),
    "reduce-scatter": (("fsdp",), SQUARE, 3 / 4),
    "collective-permute": (("fsdp",), SQUARE, 1),
    "all-to-all": (("data",), SQUARE, 1 / 2),
  }
  assert set(found) == set(expected)
  for kind, (axes, size, share) in expected.items():
    assert found[kind].axes == axes, kind
    assert found[kind].bytes == size, kind
    assert found[kind].sent_a_step == TRIPS * size * share, kind
    assert found[kind].loop, kind


@pytest.mark.parametrize(
  ("text", "expected"),
  [
    ("{{0,1},{2,3}}, x", [[0, 1], [2, 3]]),
    ("[2,2]<=[4], x", [[0, 1], [2, 3]]),
    ("[2,2]<=[2,2]T(1,0), x", [[0, 2], [1, 3]]),
    ("mesh['a'=2,'b'=2] {'a'}, x", [[0, 2], [1, 3]]),
    ("mesh['a'=2,'b'=2] {'b'}, x", [[0, 1], [2, 3]]),
    ("mesh['a'=2,'b'=2], device_ids=([2,2]T(1,0)) {'a'}", [[0, 1], [2, 3]]),
    ("mesh['a'=4] {'a':(1)2}", [[0, 2], [1, 3]]),
    ("mesh['a'=4] {'a':(2)2}", [[0, 1], [2, 3]]),
    ("{}", [[0, 1, 2, 3]]),
  ],
)
def test_groups_in_every_form(text, expected):
  groups = collectives.groups_of(f"channel_id=1, replica_groups={text}", 4)

  assert [list(g) for g in groups] == expected


def test_a_transposed_count_is_numpys():
  groups = collectives.groups_of("replica_groups=[4,6]<=[2,3,4]T(2,0,1)", 24)

  expected = np.arange(24).reshape(2, 3, 4).transpose(2, 0, 1).reshape(4, 6)
  np.testing.assert_array_equal(groups, expected)


# Of TPUs: started in one fusion, ended in another, and fused with a slice.
FUSED = """\
%start_it (p: bf16[48,768]) -> (bf16[48,768], bf16[192,768]) {
  %p = bf16[48,768]{1,0} parameter(0)
  %all-gather.1 = bf16[192,768]{1,0} all-gather(%p), replica_groups=[4,4]<=[16], dimensions={0}
  ROOT %c.1 = (bf16[48,768]{1,0}, bf16[192,768]{1,0}) custom-call(%all-gather.1), custom_call_target="AsyncCollectiveStart"
}

%async_collective_fusion.1 (p: bf16[48,768]) -> bf16[192,768] {
  %p = bf16[48,768]{1,0} parameter(0)
  ROOT %all-gather.2 = bf16[192,768]{1,0} all-gather(%p), replica_groups=[4,4]<=[16], dimensions={0}
}

%end_it (p: bf16[48,768]) -> bf16[192,768] {
  %p = bf16[48,768]{1,0} parameter(0)
  %all-gather.3 = bf16[192,768]{1,0} all-gather(%p), replica_groups=[4,4]<=[16], dimensions={0}
  ROOT %c.2 = bf16[192,768]{1,0} custom-call(%all-gather.3), custom_call_target="AsyncCollectiveDone"
}

%all-reduce-scatter.1 (p: bf16[64,64]) -> bf16[16,64] {
  %p = bf16[64,64]{1,0} parameter(0)
  %all-reduce.1 = bf16[64,64]{1,0} all-reduce(%p), replica_groups=[4,4]<=[16], to_apply=%add
  ROOT %slice = bf16[16,64]{1,0} dynamic-slice(%all-reduce.1), dynamic_slice_sizes={16,64}
}

ENTRY %main (x: bf16[48,768], y: bf16[64,64]) -> bf16[16,64] {
  %x = bf16[48,768]{1,0} parameter(0)
  %y = bf16[64,64]{1,0} parameter(1)
  %f.1 = (bf16[48,768]{1,0}, bf16[192,768]{1,0}) fusion(%x), kind=kCustom, calls=%start_it
  %f.2 = bf16[192,768]{1,0} fusion(%x), kind=kOutput, calls=%async_collective_fusion.1
  %f.3 = bf16[192,768]{1,0} fusion(%x), kind=kCustom, calls=%end_it
  ROOT %f.4 = bf16[16,64]{1,0} fusion(%y), kind=kCustom, calls=%all-reduce-scatter.1
}
"""  # noqa: E501


def test_a_collective_in_several_fusions_counts_once():
  found = collectives.find(hlo.parse(FUSED), {"data": 4, "fsdp": 4})

  assert [(c.kind, c.axes, c.bytes) for c in found] == [
    ("all-gather", ("fsdp",), 192 * 768 * 2),
    ("reduce-scatter", ("fsdp",), 64 * 64 * 2),
  ]


def test_groups_across_slices_use_the_data_centres_network(program):
  def slice_of(index):
    return index // 4  # `data` goes across.

  found = collectives.find(program, MESH, slice_of)

  assert {c.kind: c.network for c in found} == {
    "all-gather": "ICI",
    "all-reduce": "DCN",
    "reduce-scatter": "ICI",
    "collective-permute": "ICI",
    "all-to-all": "DCN",
  }


def _send(shape, transfer, target):
  return (
    f"(f32[{shape}], u32[], token[]) send(%p, %t), is_host_transfer=true, "
    'frontend_attributes={_xla_host_transfer_rendezvous="x",'
    f"_xla_megascale_target={target},"
    f'_xla_megascale_transfer_type="{transfer}"}}'
  )


# As the compiler of TPUs writes what goes from slice to slice.
SLICES = f"""\
ENTRY %main (p: f32[6]) -> f32[6] {{
  %p = f32[6]{{0}} parameter(0)
  %t = token[] after-all()
  %send.1 = {_send(6, "ALL_REDUCE", '"{1,2}x{0:7}"')}
  %send.2 = {_send(6, "ALL_GATHER", '"{1,2}x{0:7}"')}
  %send.3 = {_send(6, "ONE_TO_ONE", "{{100007->200000},{200007->100000}}")}
  ROOT %out = f32[6]{{0}} copy(%p)
}}
"""


def test_what_goes_between_slices_is_counted_and_named():
  mesh = dict(replica=2, data=4, fsdp=2)
  found = collectives.find(hlo.parse(SLICES), mesh, lambda device: device // 8)

  assert [(c.kind, c.axes, c.size, c.network) for c in found] == [
    ("all-reduce", ("replica",), 2, "DCN"),
    ("all-gather", ("replica",), 2, "DCN"),
    ("collective-permute", ("replica",), 2, "DCN"),
  ]
  # Twice half of 6 numbers; half of 12; all 6.
  assert [c.sent for c in found] == [24, 24, 24]
  assert [c.group for c in found] == [(0, 8)] * 3


def test_an_unknown_transfer_between_slices_is_not_left_out():
  text = SLICES.replace("ALL_REDUCE", "ALL_TO_SOME")

  with pytest.raises(ValueError, match="ALL_TO_SOME"):
    collectives.find(hlo.parse(text), dict(replica=2, data=8), lambda d: d // 8)
