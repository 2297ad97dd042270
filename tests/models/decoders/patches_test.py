import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mmjax.core.sequence import Sequence
from mmjax.models.decoders.patches import LIGHT, patches
from mmjax.models.fusion.restore import Restore
from mmjax.models.layers.positions import sincos

D, E, GRID = 6, 8, (2, 3)
SIZE = dict(embed_dim=E, num_layers=1, num_heads=2, mlp_dim=12)
KEY = jax.random.key(0)
VISIBLE = np.asarray([[0, 2, 5], [4, 1, 3]], np.int32)
DECODER = patches(size=SIZE, grid=GRID)


@pytest.fixture
def sequence(rng):
  """Half of six tokens behind one special token, one of them padding."""
  mask = np.ones((2, 4), bool)
  mask[1, 2] = False  # Position 1.
  return Sequence(
    jnp.asarray(rng.normal(size=(2, 4, D)), jnp.float32),
    jnp.asarray(mask),
    jnp.asarray(VISIBLE),
    num_prefix=1,
    num_content=6,
  )


def test_every_position_is_mixed_with_what_was_visible(
  sequence, randomized, by_hand
):
  params = randomized(DECODER, sequence, train=False)
  got = jax.jit(lambda p, s: DECODER.apply({"params": p}, s, train=False))(
    params, sequence
  )

  assert got.positions is None and got.x.shape == (2, 7, E)
  for i in range(2):
    x = by_hand.linear(params["input"], sequence.x[i])
    restored, mask = [x[0]], [True]
    for position in range(6):
      where = np.flatnonzero(VISIBLE[i] == position)
      if len(where):
        restored.append(x[1 + where[0]])
        mask.append(bool(sequence.mask[i, 1 + where[0]]))
      else:
        table = np.asarray(params["restore"]["positions"]["table"])
        restored.append(
          np.asarray(params["restore"]["mask_token"]) + table[position]
        )
        mask.append(True)
    expected = by_hand.stack(params["stack"], np.stack(restored), mask)
    np.testing.assert_allclose(got.x[i], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(got.mask[i], mask)


def test_positions_start_from_the_sines_of_the_grid(sequence):
  assert DECODER.grid == GRID
  params = nn.meta.unbox(jax.jit(Restore(GRID).init)(KEY, sequence)["params"])
  np.testing.assert_allclose(
    params["positions"]["table"], sincos(GRID, D), rtol=1e-6, atol=1e-7
  )


def test_a_sequence_that_is_whole_needs_no_token(sequence):
  whole = sequence.replace(positions=None, num_content=3)
  params = jax.eval_shape(lambda: DECODER.init(KEY, whole, train=False))
  assert set(params["params"]) == {"input", "stack"}


def test_without_a_size_it_is_light():
  size = patches().size
  assert {k: getattr(size, k) for k in LIGHT} == LIGHT
