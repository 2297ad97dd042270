import importlib.util

import pytest

from mmjax.core import errors
from mmjax.plan import topologies
from mmjax.sharding import mesh as mesh_lib

HAS_LIBTPU = importlib.util.find_spec("libtpu") is not None
needs_libtpu = pytest.mark.skipif(
  not HAS_LIBTPU, reason="needs libtpu: pip install 'mmjax[tpu]'"
)


def test_gpus_and_cpus_are_fake_devices_of_this_machine():
  gpus = topologies.topology("h100:8")
  cpus = topologies.topology("cpu:2")

  assert (gpus.platform, cpus.platform) == ("gpu", "cpu")
  assert (len(gpus.devices), len(cpus.devices)) == (8, 2)
  assert not gpus.exact and cpus.exact
  assert topologies.topology("h200").chip.hbm_bytes == 141e9


@pytest.mark.parametrize(
  ("name", "message"),
  [
    ("v5f:4x4", "Unknown topology 'v5f'.*Did you mean 'v5[ep]'"),
    ("v5e:4x4x4", "a v5e slice has 2 dimensions.*'v5e:16x16'"),
    ("v5e:four", "has 2 dimensions"),
    ("v5p:16x16", "a v5p slice has 3 dimensions.*'v5p:4x4x8'"),
    ("h100:two", "expected a number of devices, e.g. 'h100:8'"),
    ("cpu:64", "64 devices are wanted, there are 8"),
  ],
)
def test_names_that_are_none(name, message):
  with pytest.raises(errors.UserError, match=message):
    topologies.topology(name)


def test_a_missing_compiler_says_what_to_install(monkeypatch):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

  with pytest.raises(errors.UserError, match=r"pip install 'mmjax\[tpu\]'"):
    topologies.topology("v5e:4x4")


def test_slices_are_of_tpus():
  with pytest.raises(errors.UserError, match="'h100' has no slices"):
    topologies.topology("h100:8", slices=2)


@needs_libtpu
def test_tpus_come_with_their_places():
  found = topologies.topology("v5e:2x4")

  assert len(found.devices) == 8
  assert {tuple(d.coords[:2]) for d in found.devices} == {
    (x, y) for x in range(2) for y in range(4)
  } or {tuple(d.coords[:2]) for d in found.devices} == {
    (x, y) for x in range(4) for y in range(2)
  }
  assert found.slice_of(7) == 0


@needs_libtpu
def test_shapes_that_libtpu_refuses_name_common_ones():
  with pytest.raises(errors.UserError, match="knows no topology.*v5e:16x16"):
    topologies.topology("v5e:3x5")


@needs_libtpu
def test_the_outermost_axis_goes_across_slices():
  found = topologies.topology("v5e:4x4", slices=2)
  shape = mesh_lib.MeshShape(replica=2, data=4, fsdp=4)

  mesh = mesh_lib.make_mesh(shape, found.devices)

  for replica, members in enumerate(mesh.devices):
    assert {d.slice_index for d in members.flat} == {replica}
  assert len(set(mesh.devices.flat)) == 32


@needs_libtpu
def test_an_outermost_axis_that_slices_do_not_divide_is_refused():
  found = topologies.topology("v5e:2x2", slices=3)

  with pytest.raises(errors.UserError, match="mesh.data=4 .*multiple of 3"):
    mesh_lib.make_mesh(mesh_lib.MeshShape(data=4, fsdp=3), found.devices)
