import numpy as np
import pytest

from mmjax.core import errors
from mmjax.data import pipeline
from mmjax.data.transforms.image import ImageTransform, MaskImage
from mmjax.data.transforms.optional import Optional

IMAGE = (
  ImageTransform(size=8, crop_scale=(0.3, 0.6)),
  MaskImage(grid=(2, 2), rate=0.5),
)
MADE = Optional(modality="image", field="image", transforms=IMAGE)


@pytest.fixture
def picture(rng):
  return rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)


def test_an_example_that_has_it_goes_through_the_transforms(picture):
  example = MADE.prepare({"image": picture, "text": "a"})
  got = MADE(example, np.random.default_rng(3), train=True)
  rng = np.random.default_rng(3)
  want = {"image": picture}
  for transform in IMAGE:
    want = transform(want, rng, train=True)
  assert got["image_present"] and got["text"] == "a"
  for name in ("image", "image_hidden"):
    np.testing.assert_array_equal(got[name], want[name])


@pytest.mark.parametrize("lacking", [{}, {"image": None}, {"image": b""}])
def test_an_example_without_it_has_zeros_that_fit(lacking, rng):
  got = MADE(MADE.prepare(lacking), rng, train=True)
  assert not got["image_present"]
  for name, spec in MADE.specs().items():
    assert spec.matches(np.asarray(got[name])[None])
    assert not np.any(got[name])


class Half:
  """Every other drawn shape has no picture; each third no words."""

  def __init__(self, *, split, path=""):
    self.source = pipeline.sources.open_source("synthetic", split=split)
    self.class_names = self.source.class_names

  def __len__(self):
    return len(self.source)

  def __getitem__(self, index):
    example = dict(self.source[index])
    if index % 2:
      del example["image"]
    if index % 3 == 0:
      example["label_en"] = ""
    return example


def _build(**fields):
  return pipeline.build_pipeline(
    dict(
      source=f"{__name__}:Half",
      split="train",
      image=dict(size=16, mask=dict(rate=0.5, patch_size=4)),
      text=dict(max_tokens=8),
      **fields,
    )
  )


def test_a_config_names_what_may_be_missing():
  made = _build(optional=("image", "text"))
  for index in range(6):
    example = made.example(index, 0, 0, train=True)
    assert bool(example["image_present"]) == (index % 2 == 0)
    assert bool(example["text_present"]) == (index % 3 != 0)
    assert np.any(example["text_mask"]) == (index % 3 != 0)


def test_a_section_that_is_not_there_cannot_be_optional():
  with pytest.raises(errors.UserError, match="Did you mean 'image'"):
    _build(optional=("imgae",))
