import jax
import numpy as np
import pytest
from jax.sharding import AxisType

from mmjax.core import errors
from mmjax.sharding import mesh
from mmjax.sharding.mesh import MeshShape


@pytest.mark.parametrize(
  ("shape", "expected"),
  [
    ({}, (1, 8, 1, 1, 1)),
    (dict(fsdp=4), (1, 2, 4, 1, 1)),
    (dict(data=2, fsdp=-1, tensor=2), (1, 2, 2, 2, 1)),
    (dict(replica=2, data=1, fsdp=2, sequence=2), (2, 1, 2, 1, 2)),
    (dict(data=8, tensor=-1), (1, 8, 1, 1, 1)),
  ],
)
def test_minus_one_takes_what_is_left(shape, expected):
  sizes = MeshShape(**shape).resolve(8)

  assert tuple(sizes[axis] for axis in mesh.AXES) == expected


def test_mesh_that_needs_other_devices_names_the_sizes_that_fit():
  with pytest.raises(errors.UserError) as e:
    MeshShape(data=3, fsdp=2).resolve(8)

  assert "takes 6 devices, there are 8" in str(e.value)
  assert "Sizes that fit: [1, 2, 4, 8]" in str(e.value)


def test_rest_that_does_not_divide_names_the_multiple():
  with pytest.raises(errors.UserError, match="takes a multiple of 3 devices"):
    MeshShape(data=-1, tensor=3).resolve(8)


def test_only_one_axis_may_be_left_open():
  with pytest.raises(errors.UserError, match=r"\['data', 'fsdp'\]"):
    MeshShape(fsdp=-1).resolve(8)


@pytest.mark.parametrize("size", [0, -2])
def test_size_that_is_no_number_of_devices_is_refused(size):
  with pytest.raises(errors.UserError, match=f"mesh.tensor={size}"):
    MeshShape(tensor=size).resolve(8)


def test_mesh_arranges_the_given_devices_row_by_row():
  devices = jax.devices()[:4]

  made = mesh.make_mesh(MeshShape(data=2, tensor=2), devices)

  ids = np.vectorize(lambda d: d.id)(made.devices)
  expected = np.array([d.id for d in devices]).reshape(1, 2, 1, 2, 1)
  np.testing.assert_array_equal(ids, expected)


def test_axes_are_auto_since_linen_fails_under_explicit_ones():
  made = mesh.make_mesh(MeshShape())

  assert set(made.axis_types) == {AxisType.Auto}


def test_batch_is_split_over_replica_data_and_fsdp_only():
  made = mesh.make_mesh(MeshShape(replica=2, data=1, fsdp=2, tensor=2))

  assert mesh.batch_ways(made) == 2 * 1 * 2


def test_batch_that_divides_is_accepted():
  made = mesh.make_mesh(MeshShape(data=4, tensor=2))

  mesh.check_batch_size(24, 3, made)


@pytest.mark.parametrize(
  ("batch_size", "accumulate", "advice"),
  [
    (12, 1, "a multiple of 8, e.g. 8 or 16"),
    (20, 2, "a multiple of 16, e.g. 16 or 32"),
    (5, 1, "a multiple of 8, e.g. 8"),
    (0, 1, "a multiple of 8, e.g. 8"),
  ],
)
def test_batch_that_does_not_divide_names_the_nearest_sizes(
  batch_size, accumulate, advice
):
  made = mesh.make_mesh(MeshShape())

  with pytest.raises(errors.UserError) as e:
    mesh.check_batch_size(batch_size, accumulate, made)

  assert f"train.batch_size={batch_size} does not split over 8" in str(e.value)
  assert str(e.value).endswith(f"{advice}.")
