import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core import errors
from mmjax.core.sequence import Sequence
from mmjax.models.decoders.predictor import LIGHT, predictor
from mmjax.models.layers.positions import sincos

D, E, GRID = 6, 8, (2, 3)
SIZE = dict(embed_dim=E, num_layers=1, num_heads=2, mlp_dim=12)
VISIBLE = np.asarray([[0, 2, 5], [4, 1, 3], [1, 0, 5]], np.int32)
DECODER = predictor(size=SIZE, grid=GRID)


@pytest.fixture(scope="module")
def sequence():
  """Half of six tokens behind one special token; one is padding, one row is."""
  mask = np.ones((3, 4), bool)
  mask[1, 2] = False  # Position 1.
  mask[2] = False
  return Sequence(
    jnp.asarray(np.random.default_rng(2).normal(size=(3, 4, D)), jnp.float32),
    jnp.asarray(mask),
    jnp.asarray(VISIBLE),
    num_prefix=1,
    num_content=6,
  )


def _predicted(params, start, seen, mask, by_hand):
  """One example: tokens that attend to what they see, not to each other."""
  block = params["stack"]["layer_00"]
  y = by_hand.layer_norm(block["cross_attention_norm"], start)
  mask = np.broadcast_to(mask, (len(start), len(seen)))
  x = start
  if mask.any():
    x = x + by_hand.attention(block["cross_attention"], y, seen, mask)
  y = by_hand.layer_norm(block["mlp_norm"], x)
  x = x + by_hand.mlp(block["mlp"], y)
  return by_hand.layer_norm(params["stack"]["norm"], x)


def test_dropped_tokens_attend_to_the_visible_ones_alone(
  sequence, randomized, by_hand
):
  params = randomized(DECODER, sequence, train=False)
  got = jax.jit(lambda p, s: DECODER.apply({"params": p}, s, train=False))(
    params, sequence
  )

  assert got.positions is None and got.num_prefix == 0
  assert got.x.shape == (3, got.num_content, E)
  for i in range(3):
    hidden = np.setdiff1d(np.arange(6), VISIBLE[i])
    table = np.asarray(params["positions"]["table"], np.float64)
    start = np.asarray(params["mask_token"]) + table[hidden]
    expected = np.zeros((6, E))
    expected[hidden] = _predicted(
      params, start, sequence.x[i], sequence.mask[i], by_hand
    )
    np.testing.assert_allclose(got.x[i], expected, rtol=1e-4, atol=1e-5)
    counts = np.isin(np.arange(6), hidden) & (i < 2)
    np.testing.assert_array_equal(got.mask[i], counts)


def test_positions_start_from_the_sines_of_the_grid(sequence):
  params = jax.jit(
    lambda s: DECODER.init(jax.random.key(0), s, train=False)["params"]
  )(sequence)
  np.testing.assert_allclose(
    params["positions"]["table"].value, sincos(GRID, E), rtol=1e-6, atol=1e-7
  )


def test_where_nothing_was_dropped_it_says_so(sequence):
  whole = sequence.replace(positions=None, num_content=3)
  with pytest.raises(errors.UserError, match="hidden='drop'"):
    jax.eval_shape(lambda: DECODER.init(jax.random.key(0), whole, train=False))


def test_without_a_size_it_is_light():
  size = predictor().size
  assert {k: getattr(size, k) for k in LIGHT} == LIGHT
