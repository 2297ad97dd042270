import numpy as np
import pytest

from mmjax.convert import mapping, tensors
from mmjax.convert.mapping import Copy, Ignored, rule
from mmjax.convert.transforms import Matrix, Merged
from mmjax.core import errors

RULES = [
  *mapping.layers(2, [rule("b_{i:02d}/kernel", "l.{i}.w", Matrix())]),
  rule("table", "e.w"),
  Copy("out.w", of="e.w"),
  Ignored(r"ids.*", "0, 1, 2"),
]
OURS = {"b_00/kernel": (2, 3), "b_01/kernel": (2, 3), "table": (4, 2)}


@pytest.fixture
def theirs(rng):
  made = {
    "l.0.w": rng.normal(size=(3, 2)),
    "l.1.w": rng.normal(size=(3, 2)),
    "e.w": rng.normal(size=(4, 2)),
  }
  made = {name: x.astype(np.float32) for name, x in made.items()}
  return {**made, "out.w": made["e.w"].copy(), "ids": np.arange(4)}


def _cover(theirs, ours=OURS, rules=RULES):
  specs = {
    n: tensors.Spec(x.shape, tensors.NAMES[x.dtype]) for n, x in theirs.items()
  }
  return mapping.Coverage(rules, specs, ours)


def test_each_parameter_comes_from_its_tensor(theirs):
  made = dict(_cover(theirs).arrays(theirs.__getitem__))
  assert set(made) == set(OURS)
  np.testing.assert_array_equal(made["b_01/kernel"], theirs["l.1.w"].T)
  np.testing.assert_array_equal(made["table"], theirs["e.w"])


def test_the_same_rules_lead_back(theirs):
  made = dict(_cover(theirs).arrays(theirs.__getitem__))
  again = dict(mapping.back(RULES, made))
  assert set(again) == {"l.0.w", "l.1.w", "e.w"}
  for name, array in again.items():
    np.testing.assert_array_equal(array, theirs[name])


def test_the_table_has_every_tensor(theirs):
  rows = _cover(theirs).table()
  assert [(r.theirs, r.ours, r.how) for r in rows] == [
    ("l.{i}.w x2", "b_{i}/kernel x2", "matrix"),
    ("e.w", "table", "same"),
    ("out.w", "-", "equals e.w"),
    ("ids", "-", "0, 1, 2"),
  ]


def test_the_table_shortens_names_of_one_rule(theirs):
  names = ["b/query/kernel", "b/key/kernel", "b/value/kernel"]
  how = Merged(0, Matrix())
  rules = [rule(names, "e.w", how), Ignored(r"l.*|out.*|ids", "other")]
  [row, *_] = _cover(theirs, dict.fromkeys(names, (2, 1)), rules).table()
  assert row.ours == "b/{query,key,value}/kernel"
  assert (row.theirs, row.our_shape, row.how) == ("e.w", "(2, 1)", "merged")


def test_all_that_does_not_fit_is_said_at_once(theirs):
  del theirs["l.1.w"]
  theirs["more"] = np.zeros(2, np.float32)
  theirs["e.w"] = np.zeros((4, 2), np.int32)
  ours = {**OURS, "norm": (2,)}
  del ours["table"]
  with pytest.raises(errors.UserError) as e:
    _cover(theirs, ours)
  for problem in (
    "missing (1):\n    l.1.w",
    "tensors that no rule names (1):\n    more",
    "no weights (1):\n    e.w (I32)",
    "parameters that no rule names (1):\n    norm",
    "the model lacks (1):\n    table",
  ):
    assert problem in str(e.value)


def test_two_rules_for_one_tensor_are_refused(theirs):
  with pytest.raises(errors.UserError, match=r"two rules \(1\):\n    e.w"):
    _cover(theirs, {**OURS, "more": (4, 2)}, [*RULES, rule("more", "e.w")])


def test_another_shape_is_refused(theirs):
  with pytest.raises(errors.UserError, match="makes table of shape"):
    dict(_cover(theirs, {**OURS, "table": (2, 4)}).arrays(theirs.get))


def test_a_copy_that_differs_is_refused(theirs):
  theirs["out.w"][1, 1] += 1
  with pytest.raises(errors.UserError, match="should be a copy of 'e.w'"):
    dict(_cover(theirs).arrays(theirs.get))


def test_a_copy_need_not_be_there(theirs):
  del theirs["out.w"]
  assert set(dict(_cover(theirs).arrays(theirs.get))) == set(OURS)


def test_parameters_that_no_rule_names_do_not_leave():
  ours = {n: np.zeros(s, np.float32) for n, s in OURS.items()}
  ours["adapter"] = ours.pop("table")
  with pytest.raises(errors.UserError) as e:
    dict(mapping.back(RULES, ours))
  assert "no place there (1):\n    adapter" in str(e.value)
  assert "missing (1):\n    table" in str(e.value)
