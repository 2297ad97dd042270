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


@pytest.mark.parametrize("value", ["square|circle", ["circle", 1]])
def test_several_labels_are_ones_at_their_names(rng, value):
  transform = label.LabelTransform(names=NAMES, field="tags", multi_label=True)
  out = transform({"tags": value}, rng, train=True)
  np.testing.assert_array_equal(out["label"], [1, 1, 0])
  (spec,) = transform.specs().values()
  assert spec.matches(out["label"][None])
  nothing = transform({"tags": ""}, rng, train=True)
  np.testing.assert_array_equal(nothing["label"], [0, 0, 0])


def test_other_labels_are_skipped_if_that_is_wanted(rng):
  fields = dict(names=NAMES, field="tags", multi_label=True)
  example = {"tags": "red|circle"}
  with pytest.raises(errors.UserError, match="'red'"):
    label.LabelTransform(**fields)(example, rng, train=True)
  transform = label.LabelTransform(**fields, ignore_others=True)
  out = transform(example, rng, train=True)
  np.testing.assert_array_equal(out["label"], [1, 0, 0])


def test_names_have_to_be_distinct():
  with pytest.raises(errors.UserError, match="distinct"):
    label.LabelTransform(names=("a", "a"))
