import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core import axes, errors, trees
from mmjax.core.sequence import Sequence
from mmjax.models.decoders.text import text

SIZE = dict(embed_dim=16, num_layers=1, num_heads=2, mlp_dim=24)
VOCAB, MAX_TOKENS = 11, 8
KEY = jax.random.key(0)
T = 5


def _decoder(**changes):
  return text(vocab_size=VOCAB, max_tokens=MAX_TOKENS, size=SIZE, **changes)


@pytest.fixture(scope="module")
def ids():
  return jnp.asarray([[1, 5, 6, 7, 2], [1, 8, 2, 0, 0]])


@pytest.fixture(scope="module")
def mask(ids):
  return ids > 0


@pytest.fixture(scope="module")
def context():
  """Pictures of the decoder's width, sounds of another."""
  rng = np.random.default_rng(1)
  image = jnp.asarray(rng.normal(size=(2, 3, 16)), jnp.float32)
  audio = jnp.asarray(rng.normal(size=(2, 2, 8)), jnp.float32)
  return {
    "image": Sequence(
      image,
      jnp.asarray([[True, True, False], [True] * 3]),
      num_prefix=1,
      num_content=2,
    ),
    # The second example lacks it.
    "audio": Sequence(
      audio, jnp.asarray([[True, True], [False, False]]), num_content=2
    ),
  }


@pytest.fixture(scope="module", params=["cross_attention", "prefix"])
def case(request, ids, context, randomized):
  """A decoder, its parameters, and a jitted call."""
  decoder = _decoder(context=request.param)
  every = jnp.zeros(2, jnp.int32), jnp.zeros(2, bool)
  params = randomized(
    decoder, ids, context, prefix=every[0], parallel=every[1], train=False
  )

  @jax.jit
  def run(ids, context, mask, prefix, parallel):
    return decoder.apply(
      {"params": params},
      ids,
      context,
      mask=mask,
      prefix=prefix,
      parallel=parallel,
      train=False,
    )

  def call(ids, context, mask, prefix=(0, 0), parallel=(False, False)):
    return run(ids, context, mask, jnp.asarray(prefix), jnp.asarray(parallel))

  return request.param, params, call


def _embedded(params, ids, parallel=False):
  """Tokens, or the mask token, and positions, one at a time."""
  table = np.asarray(params["tokens"]["table"], np.float64)
  places = np.asarray(params["positions"]["table"], np.float64)
  token = np.asarray(params["mask_token"], np.float64)
  return np.stack(
    [(token if parallel else table[t]) + places[i] for i, t in enumerate(ids)]
  )


def _given(params, context, i, by_hand):
  """What the decoder reads of one example: sounds, then pictures."""
  audio = by_hand.linear(params["input_audio"], context["audio"].x[i])
  x = [
    audio + np.asarray(params["modality_audio"]),
    np.asarray(context["image"].x[i]) + np.asarray(params["modality_image"]),
  ]
  mask = [context[m].mask[i] for m in ("audio", "image")]
  return np.concatenate(x), np.concatenate(mask)


def _cross(params, x, mask, given, seen, by_hand):
  """One block with cross-attention, and the norm after it."""
  layer = params["layer_00"]
  y = by_hand.layer_norm(layer["attention_norm"], x)
  x = x + by_hand.attention(layer["attention"], y, y, mask)
  y = by_hand.layer_norm(layer["cross_attention_norm"], x)
  sees = np.broadcast_to(seen, (len(x), len(seen)))
  x = x + by_hand.attention(layer["cross_attention"], y, given, sees)
  x = x + by_hand.mlp(layer["mlp"], by_hand.layer_norm(layer["mlp_norm"], x))
  return by_hand.layer_norm(params["norm"], x)


def _self_mask(mask, prefix, parallel, before=()):
  """May i look at j? Said in words, one pair at a time."""
  real = [*before, *([True] * len(mask) if parallel else mask)]
  k = len(before)
  allowed = np.zeros((len(real), len(real)), bool)
  for i in range(len(real)):
    for j in range(len(real)):
      early = j < k or j - k < prefix or parallel
      allowed[i, j] = real[j] and (early or j <= i)
  return allowed


@pytest.mark.parametrize(
  ("prefix", "parallel"),
  [((0, 0), (False, False)), ((3, 1), (False, False)), ((0, 2), (True, False))],
)
def test_features_are_those_by_hand(
  case, ids, mask, context, by_hand, prefix, parallel
):
  kind, params, call = case
  got = call(ids, context, mask, prefix, parallel)
  for i in range(2):
    x = _embedded(params, ids[i], parallel[i])
    given, seen = _given(params, context, i, by_hand)
    how = np.asarray(mask[i]), prefix[i], parallel[i]
    if kind == "cross_attention":
      allowed = _self_mask(*how)
      expected = _cross(params["stack"], x, allowed, given, seen, by_hand)
    else:
      allowed = _self_mask(*how, before=seen)
      both = np.concatenate([given, x])
      expected = by_hand.stack(params["stack"], both, allowed)[-T:]
    np.testing.assert_allclose(got.x[i], expected, rtol=1e-4, atol=1e-5)
  assert (got.num_prefix, got.num_content) == (0, T)


def test_a_later_token_changes_nothing_before_it(case, ids, mask, context):
  _, _, call = case
  before = call(ids, context, mask).x
  for j in range(1, T):
    after = call(ids.at[:, j].set(9), context, mask).x
    np.testing.assert_array_equal(after[:, :j], before[:, :j])
    assert np.abs(after[0, j:] - before[0, j:]).min() > 0


def test_a_prefix_sees_all_of_itself_and_nothing_later(
  case, ids, mask, context
):
  _, _, call = case
  before = call(ids, context, mask, (3, 3)).x
  after = call(ids.at[0, 2].set(9), context, mask, (3, 3)).x
  assert np.abs(after[0] - before[0]).max(axis=-1).min() > 1e-4
  after = call(ids.at[0, 3].set(9), context, mask, (3, 3)).x
  np.testing.assert_array_equal(after[0, :3], before[0, :3])


def test_a_text_that_is_said_at_once_shows_neither_tokens_nor_length(
  case, ids, mask, context
):
  _, _, call = case
  before = call(ids, context, mask, parallel=(True, False)).x
  other = call(
    ids.at[0].set(9), context, mask.at[0, 3:].set(False), parallel=(True, False)
  ).x
  np.testing.assert_array_equal(other, before)
  image = context["image"].replace(x=context["image"].x[:, :, ::-1])
  other = call(ids, {**context, "image": image}, mask, parallel=(True, False)).x
  assert np.abs(other - before).max(axis=-1).min() > 1e-4


def test_padding_and_what_does_not_count_change_nothing(
  case, ids, mask, context
):
  _, _, call = case
  image = context["image"]
  junk = image.replace(x=jnp.where(image.mask[:, :, None], image.x, 99.0))
  got = call(jnp.where(mask, ids, 9), {**context, "image": junk}, mask).x
  expected = call(ids, context, mask).x
  np.testing.assert_array_equal(
    jnp.where(mask[:, :, None], got, 0),
    jnp.where(mask[:, :, None], expected, 0),
  )


def test_without_a_context_it_is_a_causal_stack(
  ids, mask, context, by_hand, randomized
):
  decoder = _decoder()
  params = randomized(decoder, ids, {}, train=False)
  assert "cross_attention" not in params["stack"]["layer_00"]
  got = jax.jit(
    lambda: decoder.apply({"params": params}, ids, {}, mask=mask, train=False)
  )()
  full = {"mask_token": np.zeros(16), **params}
  for i in range(2):
    expected = by_hand.stack(
      params["stack"],
      _embedded(full, ids[i]),
      _self_mask(np.asarray(mask[i]), 0, False),
    )
    np.testing.assert_allclose(got.x[i], expected, rtol=1e-4, atol=1e-5)


def test_positions_may_be_given(ids, randomized):
  places = jnp.broadcast_to(jnp.arange(T)[None], (2, T))
  for kind in ("learned", "sincos", "rotary"):
    decoder = _decoder(positions=kind)
    params = {"params": randomized(decoder, ids, {}, train=False)}

    @jax.jit
    def run(decoder=decoder, params=params):
      own = decoder.apply(params, ids, {}, train=False).x
      given = [
        decoder.apply(params, ids, {}, positions=p, train=False).x
        for p in (places, places + 3)
      ]
      return own, *given

    own, same, shifted = run()
    np.testing.assert_allclose(same, own, rtol=1e-4, atol=1e-5)
    # Rotations know differences of positions only.
    assert (np.abs(shifted - own).max() < 1e-4) == (kind == "rotary")


def test_a_text_that_is_absent_is_not_read(ids, mask, context, randomized):
  decoder = _decoder()
  params = {"params": randomized(decoder, ids, context, train=False)}
  present = jnp.asarray([True, False])

  @jax.jit
  def run(ids):
    return decoder.apply(
      params, ids, context, mask=mask, present=present, train=False
    )

  got, other = run(ids), run(ids.at[1].set(10**6))
  np.testing.assert_array_equal(got.x, other.x)
  np.testing.assert_array_equal(got.mask, mask & present[:, None])


def test_its_parameters_are_counted_and_named(ids, context, randomized):
  params = randomized(_decoder(), ids, context, train=False)
  d, m = SIZE["embed_dim"], SIZE["mlp_dim"]
  attention = 4 * (d * d + d) + 2 * d  # With its norm.
  mlp = 2 * d * m + m + d + 2 * d
  expected = (VOCAB + MAX_TOKENS) * d + 2 * attention + mlp + 2 * d
  expected += 2 * d + 8 * d + d  # Modalities; sounds to this width.
  assert trees.num_params(params) == expected
  boxed = jax.eval_shape(
    lambda: _decoder().init(KEY, ids, context, train=False)
  )["params"]
  assert boxed["tokens"]["table"].names == (axes.VOCAB, axes.EMBED)


def test_a_table_is_that_of_the_tokens(ids, randomized):
  decoder = _decoder()
  params = randomized(decoder, ids, {}, train=False)
  table = decoder.apply({"params": params}, method="table")
  np.testing.assert_array_equal(table, params["tokens"]["table"])


def test_texts_longer_than_the_position_table_are_refused():
  with pytest.raises(errors.UserError, match="9 tokens.*max_tokens=8"):
    jax.eval_shape(
      lambda ids: _decoder().init(KEY, ids, {}, train=False),
      jax.ShapeDtypeStruct((2, 9), jnp.int32),
    )


def test_an_unknown_way_to_read_a_context_is_refused():
  with pytest.raises(errors.UserError, match="Did you mean 'prefix'"):
    _decoder(context="prefixed")
