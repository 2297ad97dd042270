import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core import errors, trees
from mmjax.finetune import surgery


def _tree(names, value, shape=(2,), dtype=np.float32):
  return trees.unflatten({n: np.full(shape, value, dtype) for n in names})


def _values(tree):
  return {n: float(x.flat[0]) for n, x in trees.flatten(tree).items()}


def test_same_names_are_loaded():
  target = _tree(["a/kernel", "b/bias"], 0)
  source = _tree(["b/bias", "a/kernel"], 5)

  merged, report = surgery.load_partial(target, source)

  assert _values(merged) == {"a/kernel": 5, "b/bias": 5}
  assert report.loaded == {"a/kernel": "a/kernel", "b/bias": "b/bias"}
  assert (report.new, report.dropped, report.cast) == ((), (), ())


@pytest.mark.parametrize(
  "rename",
  [
    {r"trunk/(.*)": r"fusion/\1", r"trunk/x": "never"},
    ((r"trunk/(.*)", r"fusion/\1"),),
    [[r"trunk/(.*)", r"fusion/\1"]],
  ],
)
def test_renamed_parameters_are_loaded(rename):
  source = {"trunk": {"x": np.full(2, 1.0), "y": np.full(2, 2.0)}}

  merged, report = surgery.load_partial(
    _tree(["fusion/x", "fusion/y"], 0), source, rename=rename
  )

  assert _values(merged) == {"fusion/x": 1, "fusion/y": 2}
  assert report.loaded["fusion/x"] == "trunk/x"


def test_new_parameters_stay_as_initialised_even_if_the_source_has_them():
  merged, report = surgery.load_partial(
    _tree(["a/k", "head/k", "head/b"], 0),
    _tree(["a/k", "head/k"], 5),
    new=("head/.*",),
  )

  assert _values(merged) == {"a/k": 5, "head/k": 0, "head/b": 0}
  assert sorted(report.new) == ["head/b", "head/k"]
  assert report.replaced == ("head/k",)


def test_dropped_parameters_are_not_loaded():
  merged, report = surgery.load_partial(
    _tree(["a/k"], 0), _tree(["a/k", "old/k"], 5), dropped=("old/.*",)
  )

  assert _values(merged) == {"a/k": 5}
  assert report.dropped == ("old/k",)


def test_differences_are_listed_with_nearest_names():
  target = _tree(["a/kernel", "c/kernel", "d/kernel"], 0)
  source = {
    **_tree(["a/kernels", "c/kernel"], 5, shape=(3,)),
    **_tree(["d/kernel"], 5, dtype=np.int32),
  }

  with pytest.raises(errors.UserError) as e:
    surgery.load_partial(target, source)

  assert str(e.value).splitlines()[1:] == [
    "  only in the model (initialise them: init.new): 1",
    "    a/kernel Did you mean 'a/kernels'?",
    "  only in the checkpoint (leave them: init.dropped): 1",
    "    a/kernels",
    "  other shape or kind of number: 2",
    "    c/kernel: float32[2] in the model, float32[3] in the checkpoint",
    "    d/kernel: float32[2] in the model, int32[2] in the checkpoint",
  ]


def test_long_lists_are_cut():
  names = [f"a/{i}" for i in range(30)]

  with pytest.raises(errors.UserError, match=": 30\n(.*\n){20}.* 10 more"):
    surgery.load_partial({"b": np.zeros(2)}, _tree(names, 0), new=("b",))


@pytest.mark.parametrize(
  "option, what",
  [
    ({"new": ("x/.*",)}, "of the model"),
    ({"dropped": ("x/.*",)}, "of the checkpoint"),
    ({"rename": {"x/(.*)": "a"}}, "of the checkpoint"),
  ],
)
def test_pattern_that_matches_nothing_is_an_error(option, what):
  with pytest.raises(errors.UserError, match=rf"'x/.* matches none .*{what}"):
    surgery.load_partial(_tree(["a/k"], 0), _tree(["a/k"], 5), **option)


def test_two_parameters_of_one_name_are_an_error():
  with pytest.raises(errors.UserError, match="'a/k' and 'b/k' .* name 'c/k'"):
    surgery.load_partial(
      _tree(["c/k"], 0),
      _tree(["a/k", "b/k"], 5),
      rename={"[ab]/k": "c/k"},
    )


def test_replacement_with_an_unknown_group_is_an_error():
  with pytest.raises(errors.UserError, match="no replacement for 'a/k'"):
    surgery.load_partial(
      _tree(["c/k"], 0), _tree(["a/k"], 5), rename={"a/k": r"c/\1"}
    )


def test_loaded_arrays_get_the_dtype_of_the_model():
  source = {"a": jnp.full((2,), 1.5, jnp.bfloat16)}

  merged, report = surgery.load_partial({"a": np.zeros(2, np.float32)}, source)

  assert merged["a"].dtype == np.float32
  np.testing.assert_array_equal(merged["a"], [1.5, 1.5])
  assert report.cast == ("a",)


def test_shapes_do_as_target_where_all_is_loaded():
  target = jax.eval_shape(lambda: {"a": jnp.zeros(2)})

  merged, _ = surgery.load_partial(target, {"a": np.ones(2, np.float32)})

  np.testing.assert_array_equal(merged["a"], [1.0, 1.0])


def test_report_counts_by_top_level_name():
  _, report = surgery.load_partial(
    _tree(["text/a", "text/b", "fusion/a", "fusion/new", "head/k"], 0),
    _tree(["text/a", "text/b", "trunk/a", "old/a", "old/b", "head/k"], 5),
    rename={"trunk/(.*)": r"fusion/\1"},
    new=("fusion/new", "head/.*"),
    dropped=("old/.*",),
  )

  assert str(report).splitlines() == [
    "loaded 3 of 5 parameters",
    "  fusion: 1 loaded from trunk, 1 new",
    "  head: 1 new",
    "  text: 2 loaded",
    "  head of the checkpoint: 1 replaced by new",
    "  old of the checkpoint: 2 dropped",
  ]


def test_empty_collections_load_nothing():
  merged, report = surgery.load_partial({}, {})

  assert merged == {}
  assert str(report) == "loaded 0 of 0 parameters"


def test_of_one_tower_only_that_is_used():
  source = _tree(["encoders_image/k", "encoders_text/k", "heads/k"], 5)

  merged, report = surgery.load_partial(
    _tree(["encoders_image/k"], 0), source, only=("encoders_image/.*",)
  )

  assert _values(merged) == {"encoders_image/k": 5}
  assert report.dropped == ("encoders_text/k", "heads/k")
  assert "encoders_text of the checkpoint: 1 dropped" in str(report)


def test_an_unknown_tower_is_refused_with_the_nearest():
  with pytest.raises(errors.UserError, match="Did you mean 'encoders_image/k'"):
    surgery.load_partial(
      _tree(["encoders_image/k"], 0),
      _tree(["encoders_image/k"], 5),
      only=("encoder_image/k",),
    )


def test_an_unknown_way_to_resize_is_refused_though_nothing_is_resized():
  params = {"kernel": np.zeros((2, 2))}
  with pytest.raises(errors.UserError, match="Did you mean 'cubic'"):
    surgery.load_partial(params, params, resize_method="cubik")
