import numpy as np
import pytest

from mmjax.core import errors
from mmjax.data.transforms import label

NAMES = ("circle", "square", "triangle")


@pytest.mark.parametrize("value, index", [("square", 1), (2, 2)])
def test_label_is_the_index_of_the_name(rng, value, index):
  transform = label.LabelTransform(names=NAMES, field="shape")
  out = transform({"shape": value}, rng, train=True)
  assert out["label"] == index and out["label"].dtype == np.int32
  (spec,) = transform.specs().values()
  assert spec.matches(out["label"][None])


def test_unknown_classes_are_refused(rng):
  transform = label.LabelTransform(names=NAMES, field="shape")
  with pytest.raises(errors.UserError, match="Did you mean 'circle'"):
    transform({"shape": "circel"}, rng, train=True)
  with pytest.raises(errors.UserError, match="not one of 3 classes"):
    transform({"shape": 3}, rng, train=True)
  with pytest.raises(errors.UserError, match="Did you mean 'shapes'"):
    transform({"shapes": "circle"}, rng, train=True)


def test_names_have_to_be_distinct():
  with pytest.raises(errors.UserError, match="distinct"):
    label.LabelTransform(names=("a", "a"))
