import jax
import numpy as np
import pytest
from flax import struct

from mmjax.core import errors, trees

TREE = {
  "text": {"dense": {"kernel": np.zeros((2, 3), np.float32)}},
  "image": {
    "dense": {
      "kernel": np.zeros((4, 5), np.float32),
      "bias": np.zeros(5, np.float16),
    }
  },
}
NAMES = ["image/dense/bias", "image/dense/kernel", "text/dense/kernel"]


@struct.dataclass
class State:
  params: dict
  steps: list


def test_flatten_gives_slash_names():
  assert list(trees.flatten(TREE)) == NAMES
  assert trees.flatten(TREE)["text/dense/kernel"].shape == (2, 3)


def test_flatten_names_the_fields_of_dataclasses_and_the_indices_of_lists():
  state = State(params={"a": 1}, steps=[2, 3])
  assert trees.flatten(state) == {"params/a": 1, "steps/0": 2, "steps/1": 3}


def test_unflatten_undoes_flatten():
  back = trees.unflatten(trees.flatten(TREE))
  assert jax.tree.structure(back) == jax.tree.structure(TREE)
  assert back["image"]["dense"]["bias"] is TREE["image"]["dense"]["bias"]


def test_map_names_passes_name_and_leaf():
  lengths = trees.map_names(lambda name, leaf: (name, leaf.ndim), TREE)
  assert lengths["image"]["dense"]["bias"] == ("image/dense/bias", 1)
  assert lengths["text"]["dense"]["kernel"] == ("text/dense/kernel", 2)


def test_match_wants_the_whole_name():
  assert list(trees.match(["text/.*"], NAMES).values()) == [False, False, True]
  with pytest.raises(errors.UserError, match="matches none of the 3"):
    trees.match(["text"], NAMES)


def test_match_takes_any_of_the_patterns():
  selected = trees.match([".*/bias", "text/.*"], NAMES)
  assert [n for n, yes in selected.items() if yes] == [NAMES[0], NAMES[2]]


def test_match_without_patterns_selects_nothing():
  assert not any(trees.match([], NAMES).values())


def test_match_refuses_a_pattern_that_selects_nothing_with_the_nearest_name():
  with pytest.raises(
    errors.UserError,
    match="'text/dens/kernel' matches none of the 3 parameters. Did you mean "
    "'text/dense/kernel'",
  ):
    trees.match(["image/.*", "text/dens/kernel"], NAMES)


def test_match_refuses_what_is_no_regular_expression():
  with pytest.raises(errors.UserError, match=r"Not a regular.*'\(text'"):
    trees.match(["(text"], NAMES)


def test_split_and_merge_are_inverse():
  selected = trees.match(["image/.*"], NAMES)
  chosen, rest = trees.split(TREE, selected)
  assert list(chosen) == ["image"] and list(rest) == ["text"]
  assert jax.tree.structure(trees.merge(rest, chosen)) == jax.tree.structure(
    TREE
  )


def test_split_leaves_out_empty_parents():
  chosen, rest = trees.split(TREE, dict.fromkeys(NAMES, True))
  assert rest == {}
  assert list(trees.flatten(chosen)) == NAMES


def test_merge_refuses_two_leaves_of_one_name():
  with pytest.raises(ValueError, match="leaf 'text/dense/kernel'"):
    trees.merge(TREE, {"text": TREE["text"]})


def test_diff_of_equal_trees_is_empty():
  assert trees.diff(TREE, TREE) == ""


def test_diff_lists_what_is_missing_extra_and_of_another_shape():
  got = {
    "text": {"dense": {"kernel": np.zeros((2, 4))}},
    "image": {"dense": {"kernel": np.zeros((4, 5)), "scale": np.zeros(5)}},
  }
  assert trees.diff(TREE, got).splitlines() == [
    "  missing (1):",
    "    image/dense/bias",
    "  extra (1):",
    "    image/dense/scale",
    "  other shape (1):",
    "    text/dense/kernel: expected (2, 3), got (2, 4)",
  ]


def test_diff_cuts_long_lists_and_says_so():
  expected = {f"w{i:02}": np.zeros(1) for i in range(25)}
  lines = trees.diff(expected, {}, limit=20).splitlines()
  assert lines[0] == "  missing (25):"
  assert len(lines) == 22
  assert lines[-1] == "    ... and 5 more"


def test_sizes_are_counted_for_arrays_and_for_shapes():
  shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), TREE)
  for tree in (TREE, shapes):
    assert trees.num_params(tree) == 2 * 3 + 4 * 5 + 5
    assert trees.num_bytes(tree) == 4 * (2 * 3 + 4 * 5) + 2 * 5


def test_a_scalar_counts_as_one_number():
  assert trees.num_params({"scale": np.zeros(())}) == 1
  assert trees.num_bytes({"scale": np.zeros((), np.float32)}) == 4
