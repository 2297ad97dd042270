import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core import errors, piecewise
from mmjax.core.piecewise import Piecewise

POINTS = ((10, 1.0), (20, 3.0), (40, 0.0))
# By hand, with a ruler.
BY_STEP = {
  "linear": {0: 1.0, 10: 1.0, 15: 2.0, 20: 3.0, 25: 2.25, 40: 0.0, 99: 0.0},
  "steps": {0: 1.0, 10: 1.0, 19: 1.0, 20: 3.0, 39: 3.0, 40: 0.0, 99: 0.0},
}


@pytest.mark.parametrize("name", piecewise.KINDS)
def test_value_by_step_in_numpy_and_in_jax(name):
  made = Piecewise(kind=name, points=POINTS)
  steps, expected = zip(*BY_STEP[name].items(), strict=True)

  compiled = jax.jit(lambda step: made(step, jnp))
  got = [float(compiled(jnp.int32(step))) for step in steps]

  np.testing.assert_allclose(got, expected, rtol=1e-6)
  np.testing.assert_allclose(made(np.array(steps)), expected)
  assert float(made(15)) == BY_STEP[name].get(15, 1.0)


def test_numbers_that_do_not_change_are_taken_as_they_are():
  ramp = Piecewise(kind="linear", points=POINTS)

  assert piecewise.at(0.5, 7) == 0.5
  assert (piecewise.highest(0.5), piecewise.highest(ramp)) == (0.5, 3.0)
  assert piecewise.times(0.5, 4.0) == 2.0
  assert piecewise.times(ramp, 2.0).values == (2.0, 6.0, 0.0)


@pytest.mark.parametrize(
  "name, points, match",
  [
    ("liner", POINTS, "Unknown schedule 'liner'.*Did you mean 'linear'"),
    ("linear", (), "expected"),
    ("linear", (1.0, 2.0), "expected"),
    ("linear", 2.0, "expected"),
    ("linear", ((0, 1.0, 2.0),), "expected"),
    ("steps", ((5, 1.0), (5, 2.0)), r"\[5, 5\], expected each"),
    ("steps", ((9, 1.0), (5, 2.0)), r"\[9, 5\], expected each"),
    ("steps", ((-1, 1.0),), "expected each >= 0"),
    ("linear", ((0, 1.0), (5, -2.0)), "value at step 5 is -2.0"),
    ("linear", ((0, float("nan")),), "value at step 0 is nan"),
  ],
)
def test_what_is_no_course_is_refused(name, points, match):
  with pytest.raises(errors.UserError, match=match):
    Piecewise(kind=name, points=points)
