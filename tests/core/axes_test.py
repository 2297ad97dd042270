from mmjax.core import axes


def _words():
  return {
    name: value
    for name, value in vars(axes).items()
    if isinstance(value, str) and not name.startswith("_")
  }


def test_every_word_stands_for_one_axis():
  words = _words()
  assert len(set(words.values())) == len(words)


def test_every_word_is_listed_as_parameter_or_activation_axis():
  activations = {v for n, v in _words().items() if n.startswith("ACT_")}
  assert axes.ACTIVATION_AXES == activations
  assert axes.PARAMETER_AXES == set(_words().values()) - activations
  assert axes.ALL_AXES == set(_words().values())
