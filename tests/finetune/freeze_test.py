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
