import numpy as np
import pytest

from mmjax.core import errors
from mmjax.finetune import freeze

PARAMS = {
  "encoders_text": {"stem": {"table": np.zeros(2)}, "norm": np.zeros(1)},
  "heads_label": {"kernel": np.zeros(3)},
}


def test_all_parameters_are_trained_by_default():
  assert freeze.trainable_mask(PARAMS) == {
    "encoders_text/stem/table": True,
    "encoders_text/norm": True,
    "heads_label/kernel": True,
  }


def test_frozen_has_the_last_word():
  mask = freeze.trainable_mask(
    PARAMS, ("heads.*", "encoders_text/.*"), (".*/table",)
  )

  assert mask == {
    "encoders_text/stem/table": False,
    "encoders_text/norm": True,
    "heads_label/kernel": True,
  }


def test_patterns_match_whole_names():
  with pytest.raises(errors.UserError, match="'heads_label' matches none"):
    freeze.trainable_mask(PARAMS, ("heads_label",))


def test_pattern_without_a_match_names_the_nearest():
  with pytest.raises(
    errors.UserError, match="Did you mean 'heads_label/kernel'"
  ):
    freeze.trainable_mask(PARAMS, (".*",), ("head_label/kernel",))


def test_nothing_left_to_train_is_an_error():
  with pytest.raises(
    errors.UserError, match=r"None of the 3 .*trainable=\['.\*'\].*frozen="
  ):
    freeze.trainable_mask(PARAMS, (".*",), (".*",))


TRAINED = ["stem/kernel", "layer_00/kernel", "layer_01/kernel", "head/kernel"]


def test_first_steps_are_those_of_the_first_entry_that_matches():
  unfreeze = ((0, "layer_01/.*"), (5, ("layer_.*",)), (9, [".*/kernel"]))

  starts = freeze.first_steps(unfreeze, TRAINED)

  assert starts == {"stem/kernel": 9, "layer_00/kernel": 5, "head/kernel": 9}


def test_names_of_no_entry_are_trained_from_the_start():
  assert freeze.first_steps(((5, "layer_.*"),), TRAINED) == {
    "layer_00/kernel": 5,
    "layer_01/kernel": 5,
  }
  assert freeze.first_steps((), TRAINED) == {}


@pytest.mark.parametrize(
  "wrong", [5, (5,), (-1, ".*"), (1.5, ".*"), ("layer_.*", 5), (5, ())]
)
def test_an_entry_that_is_no_pair_is_refused(wrong):
  with pytest.raises(errors.UserError, match="finetune.unfreeze has"):
    freeze.first_steps((wrong,), TRAINED)


def test_unfreezing_nothing_known_names_the_nearest():
  with pytest.raises(
    errors.UserError, match="'layer_02/kernel' matches none.*Did you mean"
  ):
    freeze.first_steps(((5, "layer_02/kernel"),), TRAINED)


def test_a_first_step_that_trains_nothing_is_refused():
  with pytest.raises(errors.UserError, match="nothing to train at the first"):
    freeze.first_steps(((1, ".*"),), TRAINED)


def test_without_any_pattern_nothing_is_trained():
  params = {"stem": {"kernel": 1}, "head": {"kernel": 2}}
  assert freeze.trainable_mask(params, ()) == {
    "head/kernel": False,
    "stem/kernel": False,
  }
