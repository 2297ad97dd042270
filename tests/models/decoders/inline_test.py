import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core import errors
from mmjax.core.sequence import Sequence
from mmjax.models.decoders import inline
from mmjax.models.decoders.text import text

SIZE = dict(embed_dim=16, num_layers=1, num_heads=2, mlp_dim=24)
VOCAB, MAX_TOKENS = 11, 12
IDS = jnp.asarray(
  [[1, 4, 4, 5, 2, 1, 4, 6, 7, 2], [1, 5, 6, 4, 4, 7, 2, 0, 0, 0]]
)
SEGMENTS = jnp.asarray([[1] * 5 + [2] * 5, [1] * 7 + [0] * 3])
POSITIONS = jnp.asarray([[*range(5), *range(5)], [*range(7), 0, 0, 0]])
PLACES = jnp.asarray(
  [[-1, 0, 1, -1, -1, -1, 3, -1, -1, -1], [-1, -1, -1, 2, 1] + [-1] * 5]
)
LENGTHS = (10, 7)
HOW = ("segments", "positions", "places")


@pytest.fixture(scope="module")
def context():
  """Two pictures of two tokens each, of another width than the decoder's.

  The second row lacks its second picture.
  """
  x = np.random.default_rng(1).normal(size=(2, 4, 8))
  mask = jnp.asarray([[True] * 4, [True, True, False, False]])
  return {"images": Sequence(jnp.asarray(x, jnp.float32), mask, num_content=4)}


@pytest.fixture(scope="module", params=["learned", "rotary"])
def case(request, context, randomized):
  """Kind of positions, parameters, and a jitted call."""
  decoder = text(
    vocab_size=VOCAB,
    max_tokens=MAX_TOKENS,
    size=SIZE,
    context="inline",
    positions=request.param,
  )
  how = dict(zip(HOW, (SEGMENTS, POSITIONS, PLACES), strict=True))
  params = randomized(decoder, IDS, context, train=False, **how)

  @jax.jit
  def run(ids, context, mask, segments, positions, places):
    return decoder.apply(
      {"params": params},
      ids,
      context,
      mask=mask,
      segments=segments,
      positions=positions,
      places=places,
      train=False,
    )

  def call(ids=IDS, context=context, **changes):
    given = {**how, **changes}
    return run(ids, context, ids > 0, *(given[name] for name in HOW)).x

  return request.param, params, call


def _embedded(params, context, i, by_hand):
  """What stands at each position of a row, and whether it is real."""
  table = np.asarray(params["tokens"]["table"], np.float64)
  tokens = by_hand.linear(params["input_images"], context["images"].x[i])
  tokens = tokens + np.asarray(params["modality_images"])
  rows, real = [], []
  for j in range(LENGTHS[i]):
    place = int(PLACES[i, j])
    if place < 0:
      rows.append(table[int(IDS[i, j])])
      real.append(True)
    else:
      here = bool(context["images"].mask[i, place])
      rows.append(tokens[place] if here else np.zeros(16))
      real.append(here)
  return np.stack(rows), real


def test_features_are_those_by_hand(case, context, by_hand):
  kind, params, call = case
  if kind != "learned":
    pytest.skip("turned by hand in attention's own test")
  got = call()
  table = np.asarray(params["positions"]["table"], np.float64)
  for i, n in enumerate(LENGTHS):
    x, real = _embedded(params, context, i, by_hand)
    x = x + table[np.asarray(POSITIONS[i, :n])]
    allowed = np.zeros((n, n), bool)
    for j in range(n):
      for k in range(j + 1):
        allowed[j, k] = real[k] and SEGMENTS[i, j] == SEGMENTS[i, k]
    expected = by_hand.stack(params["stack"], x, allowed)
    np.testing.assert_allclose(got[i, :n], expected, rtol=1e-4, atol=1e-5)


def test_a_conversation_in_a_row_is_read_as_if_it_were_alone(case):
  _, _, call = case
  both = call()

  def pad(x, value):
    """The second conversation, moved to the front."""
    return jnp.pad(x[:, 5:], ((0, 0), (0, 5)), constant_values=value)

  alone = call(
    pad(IDS, 0),
    segments=pad(SEGMENTS, 0),
    positions=pad(POSITIONS, 0),
    places=pad(PLACES, -1),
  )
  np.testing.assert_allclose(both[0, 5:], alone[0, :5], rtol=1e-5, atol=1e-6)


def test_a_picture_changes_what_comes_after_it_and_no_other_text(case, context):
  _, _, call = case
  before = call()
  images = context["images"]
  other = call(context={"images": images.replace(x=images.x.at[0, 3].add(1.0))})
  np.testing.assert_array_equal(other[0, :6], before[0, :6])
  assert np.abs(other[0, 6:] - before[0, 6:]).max(axis=-1).min() > 1e-4
  np.testing.assert_array_equal(other[1], before[1])


def test_what_the_places_hold_and_what_is_absent_changes_nothing(case, context):
  _, _, call = case
  images = context["images"]
  junk = jnp.where(images.mask[:, :, None], images.x, jnp.nan)
  got = call(jnp.where(PLACES >= 0, 9, IDS), {"images": images.replace(x=junk)})
  for i, n in enumerate(LENGTHS):
    np.testing.assert_array_equal(got[i, :n], call()[i, :n])


@pytest.mark.parametrize(
  ("kind", "places", "problem"),
  [
    ("inline", None, "needs to know where.*'images'"),
    ("cross_attention", PLACES, "context='inline'"),
    ("prefix", PLACES, "context='inline'"),
  ],
)
def test_places_and_inline_pictures_need_each_other(
  context, kind, places, problem
):
  decoder = text(
    vocab_size=VOCAB, max_tokens=MAX_TOKENS, size=SIZE, context=kind
  )
  with pytest.raises(errors.UserError, match=problem):
    jax.eval_shape(
      lambda: decoder.init(
        jax.random.key(0), IDS, context, places=places, train=False
      )
    )


def test_pooled_pictures_are_the_means_of_squares_of_their_tokens(context):
  # Of 2 pictures of 4 x 6 tokens, each 2 x 3 squares; the second is absent.
  x = np.random.default_rng(2).normal(size=(1, 48, 5)).astype(np.float32)
  mask = jnp.arange(48)[None] < 24
  got = inline.pool(Sequence(jnp.asarray(x), mask), (4, 6), 2)
  assert got.x.shape == (1, 12, 5) and got.num_content == 12
  grid = x.reshape(2, 4, 6, 5)
  for k in range(12):
    picture, (i, j) = k // 6, divmod(k % 6, 3)
    square = grid[picture, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
    np.testing.assert_allclose(
      got.x[0, k], square.reshape(-1, 5).mean(0), rtol=1e-5, atol=1e-6
    )
  np.testing.assert_array_equal(got.mask[0], np.arange(12) < 6)
  assert inline.pool(context["images"], None, 1) is context["images"]


@pytest.mark.parametrize("grid", [None, (3, 2)])
def test_squares_that_do_not_fill_a_picture_are_refused(grid, context):
  with pytest.raises(errors.UserError, match="2x2.*do not fill"):
    inline.pool(context["images"], grid, 2)


def test_a_decoder_reads_pictures_pooled(case, context):
  """As one that is given their means, by the same parameters."""
  kind, params, _ = case
  x = context["images"].x
  means = jnp.stack([x, x + 1.0, x + 2.0, x - 3.0], axis=2).reshape(2, 16, 8)
  many = {
    "images": Sequence(means, jnp.repeat(context["images"].mask, 4, axis=1))
  }

  def run(context, **pooling):
    decoder = text(
      vocab_size=VOCAB,
      max_tokens=MAX_TOKENS,
      size=SIZE,
      context="inline",
      positions=kind,
      **pooling,
    )
    how = dict(zip(HOW, (SEGMENTS, POSITIONS, PLACES), strict=True))
    return decoder.apply({"params": params}, IDS, context, train=False, **how).x

  pooled = run(many, image_grid=(2, 2), image_pool=2)
  np.testing.assert_allclose(pooled, run(context), rtol=1e-4, atol=1e-5)
