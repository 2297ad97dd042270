import numpy as np
import pytest
import safetensors.numpy

from mmjax.core import errors
from mmjax.finetune import lora_file
from mmjax.finetune.lora import Lora

LORA = Lora(rank=2, alpha=3.0, targets=(".*/query", "fusion/.*"))


@pytest.fixture
def contents(rng):
  return lora_file.Contents(
    arrays={
      "tower/query/lora_a": rng.normal(size=(3, 2)).astype(np.float32),
      "heads_label/kernel": rng.normal(size=(4, 5)).astype(np.float32).T,
    },
    lora=LORA,
    base="0123",
    origin="trained somewhere",
  )


def test_what_was_saved_is_loaded_bit_for_bit(contents, tmp_path):
  path = tmp_path / "new" / "lora.safetensors"

  lora_file.save(path, contents)
  loaded = lora_file.load(path)

  assert (loaded.lora, loaded.base, loaded.origin) == (
    LORA,
    "0123",
    "trained somewhere",
  )
  # The library's own reader sees the same arrays.
  for arrays in (loaded.arrays, safetensors.numpy.load_file(path)):
    assert arrays.keys() == contents.arrays.keys()
    for name, array in contents.arrays.items():
      np.testing.assert_array_equal(arrays[name], array)


def test_missing_file_says_what_writes_one(tmp_path):
  with pytest.raises(errors.UserError, match="No LoRA file.*weights lora"):
    lora_file.load(tmp_path / "none")


def test_other_files_are_refused(tmp_path):
  path = tmp_path / "file"
  path.write_text("hello")
  with pytest.raises(errors.UserError, match="no safetensors file"):
    lora_file.load(path)

  safetensors.numpy.save_file({"x": np.zeros(2)}, path)
  with pytest.raises(errors.UserError, match="not one of `mmjax weights lora`"):
    lora_file.load(path)


def test_fingerprint_depends_on_names_and_numbers_not_on_order(rng):
  a, b = (rng.normal(size=(2, 3)).astype(np.float32) for _ in range(2))
  ours = lora_file.fingerprint({"a": a, "b": b})

  assert ours == lora_file.fingerprint({"b": b.copy(), "a": a})
  last_bit = np.nextafter(a, np.float32(9))
  others = [
    {"a": last_bit, "b": b},
    {"a": b, "b": a},
    {"a": a, "c": b},
    {"a": a.reshape(3, 2), "b": b},
    {"a": a},
  ]
  assert ours not in map(lora_file.fingerprint, others)
