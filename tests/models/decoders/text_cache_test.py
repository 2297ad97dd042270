"""Going on from a cache gives what the whole text at once gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core.sequence import Sequence
from mmjax.models.decoders.text import text
from mmjax.models.layers.attention import CACHE

SIZE = dict(embed_dim=16, num_layers=2, num_heads=2, mlp_dim=24)
VOCAB, T, ROOM = 11, 7, 8
PROMPTS = np.array([3, 5])  # Tokens of each row that are read at once.
# Of audio (2 tokens) and image (3), one after the other, within the prompts.
PLACES = np.array([[-1, 2, 0] + [-1] * 4, [-1, 2, 4] + [-1] * 4])
CASES = dict(
  alone=dict(positions="sincos"),
  cross=dict(context="cross_attention"),
  cross_scanned=dict(
    context="cross_attention",
    positions="rotary",
    stack=dict(scan=True, remat="full", qk_norm=True),
  ),
  inline=dict(context="inline", positions="rotary"),
  prefix=dict(context="prefix", positions="rotary"),
  prefix_scanned=dict(
    context="prefix", stack=dict(scan=True, norm_position="post")
  ),
)


def _context(name):
  if name == "alone":
    return {}
  rng = np.random.default_rng(1)
  return {
    "image": Sequence(
      jnp.asarray(rng.normal(size=(2, 3, 16)), jnp.float32),
      jnp.asarray([[True, True, False], [True] * 3]),
      num_content=3,
    ),
    # The second example lacks it.
    "audio": Sequence(
      jnp.asarray(rng.normal(size=(2, 2, 8)), jnp.float32),
      jnp.asarray([[True, True], [False, False]]),
      num_content=2,
    ),
  }


@pytest.fixture(scope="module", params=list(CASES))
def case(request, randomized):
  """Ids, features of all at once, and functions that read and go on."""
  decoder = text(
    vocab_size=VOCAB, max_tokens=ROOM, size=SIZE, **CASES[request.param]
  )
  context = _context(request.param)
  ids = jnp.asarray(np.random.default_rng(2).integers(1, VOCAB, (2, T)))
  places = jnp.asarray(PLACES) if request.param == "inline" else None
  params = randomized(decoder, ids, context, places=places, train=False)
  prefix = jnp.asarray(PROMPTS) if request.param.startswith("prefix") else None
  whole = jax.jit(
    lambda: decoder.apply(
      {"params": params},
      ids,
      context,
      prefix=prefix,
      places=places,
      train=False,
    )
  )()

  @jax.jit
  def read(ids, mask):
    return decoder.apply(
      {"params": params},
      ids,
      context,
      mask=mask,
      prefix=prefix,
      places=None if places is None else places[:, :6],
      cache_size=ROOM,
      train=False,
      mutable=[CACHE],
    )

  @jax.jit
  def go_on(cache, ids, positions):
    return decoder.apply(
      {"params": params, **cache},
      ids,
      {},
      positions=positions,
      cache_size=ROOM,
      train=False,
      mutable=[CACHE],
    )

  return ids, np.asarray(whole.x), read, go_on


def test_one_token_at_a_time_equals_all_at_once(case):
  ids, whole, read, go_on = case
  index = np.arange(6)[None]
  mask = index < PROMPTS[:, None]
  # What stands behind a prompt must not matter: neither now nor later.
  prompts = jnp.where(mask, ids[:, :6], 9)

  sequence, cache = read(prompts, jnp.asarray(mask))
  for row, length in enumerate(PROMPTS):
    np.testing.assert_allclose(
      sequence.x[row, :length], whole[row, :length], rtol=1e-4, atol=1e-5
    )
  rows = np.arange(2)
  for i in range(T - max(PROMPTS)):
    at = PROMPTS + i
    sequence, cache = go_on(
      cache, ids[rows, at][:, None], jnp.asarray(at)[:, None]
    )
    np.testing.assert_allclose(
      sequence.x[:, 0], whole[rows, at], rtol=1e-4, atol=1e-5
    )


def test_several_tokens_at_a_time_equal_all_at_once(case):
  ids, whole, read, go_on = case
  mask = jnp.asarray(np.arange(6)[None] < PROMPTS[:, None])

  _, cache = read(ids[:, :6], mask)
  at = PROMPTS[:, None] + np.arange(2)[None]
  sequence, _ = go_on(
    cache, jnp.take_along_axis(ids, jnp.asarray(at), axis=1), jnp.asarray(at)
  )

  expected = np.take_along_axis(whole, at[:, :, None], axis=1)
  np.testing.assert_allclose(sequence.x, expected, rtol=1e-4, atol=1e-5)


def test_a_later_token_changes_the_features_of_none_before(case):
  ids, _, read, go_on = case
  mask = jnp.ones((2, 6), bool)
  _, cache = read(ids[:, :6], mask)
  at = jnp.asarray([[6, 7], [6, 7]])

  one, _ = go_on(cache, jnp.asarray([[3, 4], [3, 4]]), at)
  two, _ = go_on(cache, jnp.asarray([[3, 5], [3, 5]]), at)

  np.testing.assert_array_equal(one.x[:, 0], two.x[:, 0])
  assert np.abs(np.asarray(one.x[:, 1] - two.x[:, 1])).max() > 1e-3
