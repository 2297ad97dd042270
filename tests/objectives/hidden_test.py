import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core import errors
from mmjax.core.sequence import Sequence
from mmjax.objectives import hidden

WHOLE = Sequence(jnp.zeros((2, 4, 3)), jnp.ones((2, 4), bool), num_content=4)
DROPPED = WHOLE.replace(
  x=WHOLE.x[:, :2], mask=WHOLE.mask[:, :2], positions=jnp.zeros((2, 2), int)
)
BATCH = {
  "image_hidden": jnp.asarray([[1, 3], [2, 0], [0, 1]], jnp.int32),
  "image_hidden_mask": jnp.asarray([[True, False], [True] * 2, [True] * 2]),
  "image_present": jnp.asarray([True, False, True]),
}


@pytest.mark.parametrize(
  "given, encoded, fused, calls",
  [
    ((), WHOLE, None, ["encode"]),
    ((), DROPPED, None, ["encode", "restore"]),
    (("text", "audio"), DROPPED, WHOLE, ["fuse"]),
    (("text", "audio"), DROPPED, DROPPED, ["fuse", "restore"]),
  ],
)
def test_dropped_tokens_come_back_in_fusion_or_decoder(
  table, given, encoded, fused, calls
):
  restored = ("restore", "image", *([given] if given else []), "masked")
  apply = table(
    {
      ("encode", "image", "masked"): encoded,
      restored: WHOLE,
      ("fuse", ("audio", "image", "text"), "masked"): {"image": fused},
    }
  )
  sequence = hidden.masked_sequence(apply, "image", given)
  assert sequence is WHOLE
  assert [call[0] for call in apply.calls] == calls


def test_what_counts_is_real_and_of_examples_that_have_it():
  mask = hidden.hidden_mask(BATCH, "image")
  np.testing.assert_array_equal(
    mask, [[True, False], [False, False], [True, True]]
  )
  without = {k: v for k, v in BATCH.items() if k == "image_hidden"}
  np.testing.assert_array_equal(hidden.hidden_mask(without, "image"), True)


def test_rows_that_do_not_count_are_zero_whatever_they_hold():
  values = np.arange(12, dtype=np.float32).reshape(3, 4, 1)
  values[1] = np.nan
  rows = hidden.take(jnp.asarray(values), BATCH, "image")
  np.testing.assert_array_equal(rows[:, :, 0], [[1, 0], [0, 0], [8, 9]])


def test_targets_of_another_grid_are_refused_with_both_numbers():
  hidden.check_count(WHOLE, 4, "The teacher")
  hidden.check_count(WHOLE.replace(num_content=0), 9, "The teacher")
  with pytest.raises(errors.UserError, match="teacher has 9 .* encoder 4"):
    hidden.check_count(WHOLE, 9, "The teacher")
