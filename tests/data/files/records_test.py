import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmjax.data.files import records

JSON = st.recursive(
  st.none()
  | st.booleans()
  | st.integers(-(2**53), 2**53)
  | st.floats(allow_nan=False, allow_infinity=False)
  | st.text(),
  lambda inner: st.lists(inner, max_size=3).map(tuple),
  max_leaves=5,
)
VALUES = st.binary() | JSON


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text(), VALUES, max_size=5))
def test_what_is_packed_comes_back(example):
  assert records.unpack(records.pack(example)) == example


def test_arrays_keep_their_type_and_shape(rng):
  for dtype in ("float32", "int64", "uint8", "bool"):
    array = (100 * rng.normal(size=(2, 3))).astype(dtype)
    (got,) = records.unpack(records.pack({"a": array.T})).values()
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, array.T)
  assert records.unpack(records.pack({"a": np.float32(0.5)})) == {"a": 0.5}


def test_what_has_no_form_is_refused():
  with pytest.raises(ValueError, match="cannot be written"):
    records.pack({"a": object()})


def test_any_changed_byte_is_found():
  record = records.pack({"image": b"pixels", "text": "a cat", "n": 3})
  for i in range(len(record)):
    damaged = bytearray(record)
    damaged[i] ^= 1
    with pytest.raises(ValueError):
      records.unpack(bytes(damaged))
  for cut in range(len(record)):
    with pytest.raises(ValueError):
      records.unpack(record[:cut])
