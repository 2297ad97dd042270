import json
import pickle
import struct

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from mmjax.convert import tensors
from mmjax.core import errors


@pytest.fixture
def arrays(rng):
  return {
    "a": rng.normal(size=(2, 3)).astype(np.float32),
    "b.c": rng.normal(size=(5,)).astype(ml_dtypes.bfloat16),
    "d": np.arange(4, dtype=np.int64).reshape(2, 2),
    "empty": np.zeros((0, 3), np.float32),
    "scalar": np.array(1.5, np.float16),
  }


def _header(path, header, data=b""):
  text = json.dumps(header).encode()
  path.write_bytes(struct.pack("<Q", len(text)) + text + data)
  return path


def _entry(begin, end, shape=(1,), dtype="F32"):
  return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def _same(a, b):
  assert a.dtype == b.dtype and a.shape == b.shape
  assert a.tobytes() == b.tobytes()


def test_reads_what_the_library_writes(arrays, tmp_path):
  path = tmp_path / "x.safetensors"
  safetensors.numpy.save_file(arrays, path, {"format": "pt"})
  opened = tensors.open_file(path)
  assert set(opened.specs) == set(arrays)
  assert opened.specs["b.c"] == tensors.Spec((5,), "BF16")
  for name, array in arrays.items():
    _same(opened.read(name), array)


def test_the_library_reads_what_is_written(arrays, tmp_path):
  path = tmp_path / "x.safetensors"
  specs = {
    n: tensors.Spec(x.shape, tensors.NAMES[x.dtype]) for n, x in arrays.items()
  }
  transposed = {**arrays, "a": np.asfortranarray(arrays["a"])}
  tensors.write(path, specs, transposed.values())
  with safetensors.safe_open(path, "numpy") as opened:
    assert opened.metadata() == {"format": "pt"}
    for name, array in arrays.items():
      _same(opened.get_tensor(name), array)
  assert [f.name for f in tmp_path.iterdir()] == ["x.safetensors"]


def test_shards_are_read_through_their_index(arrays, tmp_path):
  where = {}
  for i, (name, array) in enumerate(arrays.items()):
    where[name] = f"part{i}.safetensors"
    safetensors.numpy.save_file({name: array}, tmp_path / where[name])
  (tmp_path / tensors.INDEX).write_text(json.dumps({"weight_map": where}))
  opened = tensors.open_file(tmp_path)
  for name, array in arrays.items():
    _same(opened.read(name), array)


def test_an_index_cannot_lead_out_of_its_folder(tmp_path):
  index = tmp_path / tensors.INDEX
  index.write_text(json.dumps({"weight_map": {"a": "../secret.safetensors"}}))
  with pytest.raises(errors.UserError, match="expected a file beside it"):
    tensors.open_file(tmp_path)


@pytest.mark.parametrize("keep", [0, 4, 8, 40, -1])
def test_a_file_that_was_cut_off_is_refused(arrays, tmp_path, keep):
  path = tmp_path / "x.safetensors"
  safetensors.numpy.save_file(arrays, path)
  path.write_bytes(path.read_bytes()[:keep])
  with pytest.raises(errors.UserError, match="not a safetensors file"):
    tensors.open_file(path)


@pytest.mark.parametrize(
  "header, data",
  [
    ({"a": _entry(0, 4 * 10**12, (10**12,))}, 4),  # Claims terabytes.
    ({"a": _entry(0, 4, (2**62, 4))}, 4),
    ({"a": _entry(0, 4), "b": _entry(8, 12)}, 12),  # A gap.
    ({"a": _entry(0, 4), "b": _entry(0, 4)}, 4),  # Over each other.
    ({"a": _entry(0, 4)}, 8),  # More than belongs to anything.
    ({"a": _entry(0, 4, (-1,))}, 4),
    ({"a": _entry(0, 4, (True,))}, 4),
    ({"a": _entry(0, 4, dtype="F8_E4M3")}, 4),
    ({"a": {"dtype": "F32"}}, 4),
    (["a"], 4),
    ("a", 4),
  ],
)
def test_a_header_that_contradicts_itself_is_refused(tmp_path, header, data):
  path = _header(tmp_path / "x.safetensors", header, bytes(data))
  with pytest.raises(errors.UserError, match="not a safetensors file"):
    tensors.open_file(path)


def test_a_header_that_claims_a_terabyte_is_not_read(tmp_path):
  path = tmp_path / "x.safetensors"
  path.write_bytes(struct.pack("<Q", 10**12) + b"{}")
  with pytest.raises(errors.UserError, match="claims 1,000,000,000,000 bytes"):
    tensors.open_file(path)


def test_nothing_is_unpickled(tmp_path):
  class Trap:
    def __reduce__(self):
      return (tmp_path / "sprung").touch, ()

  for name in ("pytorch_model.bin", "x.pt", "x.pth"):
    (tmp_path / name).write_bytes(pickle.dumps(Trap()))
    with pytest.raises(errors.UserError, match="pickle.*safetensors.torch"):
      tensors.open_file(tmp_path / name)
  with pytest.raises(errors.UserError, match="pickle"):
    tensors.open_file(tmp_path)
  np.savez(tmp_path / "x.npz", a=np.array([Trap()], object))
  with pytest.raises(errors.UserError, match="holds Python objects"):
    tensors.open_file(tmp_path / "x.npz")
  assert not (tmp_path / "sprung").exists()


def test_npz_is_read_with_bfloat16(arrays, tmp_path):
  path = tmp_path / "x.npz"
  np.savez_compressed(path, **arrays)
  opened = tensors.open_file(path)
  for name, array in arrays.items():
    _same(opened.read(name), array)


def test_a_damaged_npz_is_refused(arrays, tmp_path):
  path = tmp_path / "x.npz"
  np.savez(path, **arrays)
  whole = path.read_bytes()
  path.write_bytes(whole[: len(whole) // 2])
  with pytest.raises(errors.UserError, match="not an npz file"):
    tensors.open_file(path)
  claims = whole.replace(b"'shape': (2, 3)", b"'shape': (9, 9)")
  path.write_bytes(claims)
  with pytest.raises(errors.UserError, match="not an npz file|damaged"):
    opened = tensors.open_file(path)
    opened.read("a")


@pytest.mark.parametrize("name", ["x.h5", "missing.safetensors", "missing.npz"])
def test_other_files_are_refused(tmp_path, name):
  if not name.startswith("missing"):
    (tmp_path / name).touch()
  with pytest.raises(errors.UserError, match="expected a file|No file"):
    tensors.open_file(tmp_path / name)
