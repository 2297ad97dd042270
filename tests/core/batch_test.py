import numpy as np
import pytest

from mmjax.core import batch as batches
from mmjax.core import errors
from mmjax.core.batch import FieldSpec


def _batch(size=4):
  return {
    "image": np.zeros((size, 8, 8, 3), np.uint8),
    "text": np.zeros((size, 5), np.int32),
    "label": np.zeros((size,), np.int32),
  }


SPECS = {
  **batches.modality_fields("image", "text"),
  "label": FieldSpec((), "int32"),
}


def test_a_batch_that_fits_passes():
  batches.check_batch(_batch(), SPECS, batch_size=4)


def test_fields_that_nobody_reads_pass():
  batches.check_batch({**_batch(), "extra": np.zeros((4, 2))}, SPECS)


@pytest.mark.parametrize(
  ("shape", "dtype", "fits"),
  [
    ((2, 8, 8, 3), "uint8", True),
    ((2, 9, 1, 3), "uint8", True),
    ((2, 8, 8, 1), "uint8", False),
    ((2, 8, 8), "uint8", False),
    ((2, 1, 8, 8, 3), "uint8", False),
    ((2, 8, 8, 3), "float32", False),
  ],
)
def test_a_spec_checks_rank_fixed_sizes_and_dtype(shape, dtype, fits):
  spec = FieldSpec((None, None, 3), "uint8")
  assert spec.matches(np.zeros(shape, dtype)) is fits


def test_an_image_may_be_a_bag_of_patches():
  image = batches.MODALITIES["image"]
  assert image.matches(np.zeros((2, 7, 192), np.uint8))
  assert image.matches(np.zeros((2, 8, 8, 3), np.uint8))
  assert not image.matches(np.zeros((2, 192), np.uint8))
  assert not image.matches(np.zeros((2, 7, 192), np.float32))


def test_a_spec_reads_like_an_array():
  assert str(FieldSpec((None, None, 3), "uint8")) == "uint8[b, ?, ?, 3]"
  assert str(FieldSpec((), "int32")) == "int32[b]"


def test_an_array_is_described_by_dtype_and_shape():
  array = np.zeros((8, 64, 64, 3), np.uint8)
  assert batches.describe(array) == "uint8[8, 64, 64, 3]"


def test_an_unknown_modality_is_refused_with_the_nearest_name():
  with pytest.raises(errors.UserError, match="Did you mean 'image'"):
    batches.modality_fields("text", "imag")


def test_a_missing_field_is_named_with_what_was_expected():
  batch = _batch()
  batch["lable"] = batch.pop("label")
  with pytest.raises(
    errors.UserError,
    match=r"label: expected int32\[b\], got nothing. Did you mean 'lable'",
  ):
    batches.check_batch(batch, SPECS)


def test_a_wrong_dtype_is_named_with_expected_and_got():
  batch = {**_batch(), "image": np.zeros((4, 8, 8, 3), np.float32)}
  with pytest.raises(
    errors.UserError,
    match=r"image: expected uint8\[b, \?, \?, 3\], got float32\[4, 8, 8, 3\]",
  ):
    batches.check_batch(batch, SPECS)


def test_a_field_with_another_number_of_examples_is_named():
  batch = {**_batch(), "text": np.zeros((3, 5), np.int32)}
  with pytest.raises(
    errors.UserError, match="text: expected 4 examples, got 3"
  ):
    batches.check_batch(batch, SPECS)


def test_a_batch_of_another_size_than_asked_is_refused():
  with pytest.raises(
    errors.UserError, match="label: expected 8 examples, got 4"
  ):
    batches.check_batch(_batch(), SPECS, batch_size=8)


def test_all_problems_are_told_at_once():
  batch = {"image": np.zeros((4, 8, 8, 1), np.uint8)}
  with pytest.raises(errors.UserError) as e:
    batches.check_batch(batch, SPECS)
  lines = str(e.value).splitlines()
  assert [line.split(":")[0].strip() for line in lines[1:4]] == [
    "image",
    "text",
    "label",
  ]
  assert lines[-1] == "The batch has the fields ['image']."
