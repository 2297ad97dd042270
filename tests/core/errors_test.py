from mmjax.core import errors


def test_user_error_is_a_value_error():
  assert issubclass(errors.UserError, ValueError)


def test_nearest_names_the_closest_known_word():
  near = errors.nearest("masked_ml", ["contrastive", "masked_lm"])
  assert near == " Did you mean 'masked_lm'?"


def test_nearest_is_silent_when_nothing_is_close():
  assert errors.nearest("xyz", ["contrastive", "masked_lm"]) == ""
  assert errors.nearest("xyz", []) == ""


def test_unknown_names_kind_name_neighbour_and_the_sorted_table():
  error = errors.unknown(
    "objective", "contrastiv", {"mlm": 1, "contrastive": 2}
  )
  assert isinstance(error, errors.UserError)
  assert str(error) == (
    "Unknown objective 'contrastiv'. Did you mean 'contrastive'? "
    "Known: ['contrastive', 'mlm']."
  )
