import jax
import numpy as np
import optax

from mmjax.core import trees
from mmjax.train import state as state_lib

VARIABLES = {
  "params": {
    "tower": {"kernel": np.full((2, 3), 2.0), "bias": np.full(3, 3.0)},
    "tokenizer": {"kernel": np.full(4, 4.0)},
  },
  "codebook": {"codes": np.full(2, 5.0)},
}
TRAINABLE = {
  "tower/kernel": True,
  "tower/bias": True,
  "tokenizer/kernel": False,
}


def make(ema):
  return state_lib.create(
    VARIABLES,
    optimizer=optax.adam(0.1),
    trainable=TRAINABLE,
    ema=ema,
    rng=jax.random.key(0),
  )


def test_optimizer_and_average_hold_trained_parameters_only():
  state = make(ema=True)

  assert set(trees.flatten(state.opt_state[0].mu)) == {
    "tower/kernel",
    "tower/bias",
  }
  assert set(trees.flatten(state.ema)) == {"tower/kernel", "tower/bias"}


def test_variables_are_what_came_in():
  jax.tree.map(np.testing.assert_array_equal, make(False).variables, VARIABLES)


def test_averaged_variables_keep_what_is_not_averaged():
  state = make(ema=True)
  state = state.replace(ema=jax.tree.map(lambda x: x + 10, state.ema))

  got = trees.flatten(state.ema_variables)

  assert {name: float(x.ravel()[0]) for name, x in got.items()} == {
    "params/tower/kernel": 12.0,
    "params/tower/bias": 13.0,
    "params/tokenizer/kernel": 4.0,
    "codebook/codes": 5.0,
  }


def test_without_an_average_the_parameters_stand_for_it():
  state = make(ema=False)

  assert state.ema_variables is not None
  jax.tree.map(
    np.testing.assert_array_equal, state.ema_variables, state.variables
  )
