import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core import axes, errors, precision, trees
from mmjax.models.encoders.text import TextStem, text
from mmjax.models.layers.positions import KINDS
from mmjax.models.variants import SIZES

SIZE = dict(embed_dim=16, num_layers=1, num_heads=2, mlp_dim=24)
VOCAB, MAX_TOKENS = 11, 8
KEY = jax.random.key(0)
BATCH = jax.ShapeDtypeStruct((2, 8), jnp.int32)


@pytest.fixture(scope="module")
def encoder():
  return text(vocab_size=VOCAB, max_tokens=MAX_TOKENS, size=SIZE)


@pytest.fixture(scope="module")
def ids():
  return jnp.asarray([[3, 1, 4, 1, 5], [9, 2, 6, 0, 0], [5, 3, 5, 0, 0]])


@pytest.fixture(scope="module")
def mask(ids):
  return ids > 0


@pytest.fixture(scope="module")
def params(encoder, ids, randomized):
  return randomized(encoder, ids, train=False)


def test_text_is_embedded_with_positions_then_mixed(
  encoder, params, ids, mask, by_hand
):
  got = jax.jit(
    lambda ids: encoder.apply({"params": params}, ids, mask=mask, train=False)
  )(ids)
  table = np.asarray(params["stem"]["tokens"]["table"])
  positions = np.asarray(params["stem"]["positions"]["table"])
  for i in range(3):
    x = np.stack([table[t] + positions[j] for j, t in enumerate(ids[i])])
    expected = by_hand.stack(params["stack"], x, np.asarray(mask[i]))
    np.testing.assert_allclose(got.x[i], expected, rtol=1e-4, atol=1e-5)
  assert got.num_content == 5 and got.positions is None


def test_a_batch_of_one_gives_the_row_of_a_larger_batch(encoder, params, ids):
  encode = jax.jit(
    lambda ids: encoder.apply({"params": params}, ids, train=False).x
  )
  np.testing.assert_allclose(
    encode(ids)[1:2], encode(ids[1:2]), rtol=1e-4, atol=1e-5
  )


def test_padding_changes_nothing(encoder, params, ids, mask):
  def encode(ids, mask):
    return encoder.apply({"params": params}, ids, mask=mask, train=False)

  other = encode(jnp.where(mask, ids, 7), mask)
  got = encode(ids, mask)
  np.testing.assert_array_equal(got.x[1, :3], other.x[1, :3])
  short = encode(ids[1:2, :3], mask[1:2, :3])
  np.testing.assert_allclose(got.x[1, :3], short.x[0], rtol=1e-4, atol=1e-5)


def test_a_text_without_mask_counts_everywhere(params, ids):
  stem = TextStem(VOCAB, MAX_TOKENS, 16)
  got = stem.apply({"params": params["stem"]}, ids).mask
  np.testing.assert_array_equal(got, np.ones((3, 5), bool))


def test_padding_counts_where_it_is_attended_to(params, ids, mask):
  encoder = text(
    vocab_size=VOCAB,
    max_tokens=5,
    size=SIZE,
    pool="last",
    attend_padding=True,
  )
  positions = {"table": params["stem"]["positions"]["table"][:5]}
  params = {**params, "stem": {**params["stem"], "positions": positions}}

  def run(ids, mask):
    got = encoder.apply({"params": params}, ids, mask=mask, train=False)
    pooled = encoder.apply({"params": params}, got, method="pool")
    return got, pooled

  got, pooled = jax.jit(run)(ids, mask)
  expected, _ = jax.jit(run)(ids, jnp.ones_like(mask))
  np.testing.assert_array_equal(got.x, expected.x)
  assert np.all(got.mask)
  np.testing.assert_array_equal(pooled, got.x[:, -1])
  with pytest.raises(errors.UserError, match="4 tokens.*max_tokens=5"):
    jax.eval_shape(run, ids[:, :4], mask[:, :4])


def test_texts_longer_than_the_position_table_are_refused(encoder):
  with pytest.raises(errors.UserError, match="9 tokens.*max_tokens=8"):
    jax.eval_shape(
      lambda: encoder.init(KEY, jnp.zeros((1, 9), jnp.int32), train=False)
    )


def test_tables_carry_axis_names(encoder):
  boxed = jax.eval_shape(
    lambda: encoder.init(KEY, jnp.zeros((1, 8), jnp.int32), train=False)
  )["params"]["stem"]
  assert boxed["tokens"]["table"].names == (axes.VOCAB, axes.EMBED)
  assert boxed["positions"]["table"].names == (axes.POSITION, axes.EMBED)


def test_bfloat16_activations_over_float32_parameters(ids):
  policy = precision.POLICIES["bfloat16"]
  encoder = text(
    vocab_size=VOCAB, max_tokens=MAX_TOKENS, size=SIZE, precision=policy
  )

  def run():
    out, variables = encoder.init_with_output(KEY, ids, train=False)
    return out.x, variables

  x, variables = jax.eval_shape(run)
  assert x.dtype == jnp.bfloat16
  assert all(p.dtype == jnp.float32 for p in jax.tree.leaves(variables))


# With BERT's tables of 30522 tokens and 512 positions. BERT has the same blocks
# and as many norms outside of them (one after the embedding, ours is last);
# besides, 2 d of token types and d^2 + d of a pooler. So of the published
# 109,482,240 of BERT-base and 335,141,888 of BERT-large, ours is:
#   B: 109,482,240 - 2 * 768 - (768 * 768 + 768)
#   L: 335,141,888 - 2 * 1024 - (1024 * 1024 + 1024)
GOLDEN = {
  "Ti": 11_297_280,
  "S": 33_211_392,
  "B": 108_890_112,
  "L": 334_090_240,
  "H": 669_404_160,
}


@pytest.mark.parametrize("size", GOLDEN)
def test_number_of_parameters_of_each_size(size):
  encoder = text(vocab_size=30_522, max_tokens=512, size=size)
  got = trees.num_params(
    jax.eval_shape(lambda ids: encoder.init(KEY, ids, train=False), BATCH)
  )
  d, layers = SIZES[size].embed_dim, SIZES[size].num_layers
  assert GOLDEN[size] == (
    layers * (12 * d**2 + 13 * d)  # Blocks with mlp_dim = 4 d.
    + 2 * d  # Norm.
    + (30_522 + 512) * d  # Tokens and positions.
  )
  assert got == GOLDEN[size]


def test_segments_and_a_norm_after_the_sum_as_in_bert(ids, by_hand, randomized):
  stem = TextStem(VOCAB, MAX_TOKENS, 16, num_segments=2, norm_epsilon=1e-12)
  params = randomized(stem, ids)
  segments = jnp.asarray([[0, 0, 1, 1, 1], [0, 1, 1, 0, 0], [0, 0, 0, 0, 0]])
  got = stem.apply({"params": params}, ids, segments=segments)
  tables = {
    name: np.asarray(params[name]["table"], np.float64)
    for name in ("tokens", "positions", "segments")
  }
  for i in range(3):
    x = tables["tokens"][ids[i]] + tables["positions"][:5]
    x = by_hand.layer_norm(
      params["norm"], x + tables["segments"][segments[i]], 1e-12
    )
    np.testing.assert_allclose(got.x[i], x, rtol=1e-4, atol=1e-5)
  first = stem.apply({"params": params}, ids).x
  zeros = stem.apply({"params": params}, ids, segments=0 * segments).x
  np.testing.assert_array_equal(first, zeros)


def test_segments_without_a_table_are_refused(ids):
  stem = TextStem(VOCAB, MAX_TOKENS, 16)
  with pytest.raises(errors.UserError, match="num_segments"):
    jax.eval_shape(lambda: stem.init(KEY, ids, segments=ids))


def test_a_causal_text_does_not_look_ahead(ids, randomized):
  module = text(
    vocab_size=VOCAB, max_tokens=MAX_TOKENS, size=SIZE, causal=True, pool="last"
  )
  params = randomized(module, ids, train=False)

  @jax.jit
  def encode(ids):
    return module.apply({"params": params}, ids, train=False).x

  other = ids.at[:, 3].set(10)
  np.testing.assert_allclose(encode(ids)[:, :3], encode(other)[:, :3])
  assert np.all(np.any(encode(ids)[:, 3:] != encode(other)[:, 3:], axis=2))


def test_a_causal_text_pooled_by_its_first_token_is_refused():
  with pytest.raises(errors.UserError, match="first token sees no other"):
    text(vocab_size=9, max_tokens=4, size=SIZE, causal=True, pool="cls")


@pytest.mark.parametrize("positions", KINDS)
@pytest.mark.parametrize("pool", ["cls", "mean", "map", "last"])
def test_every_kind_of_positions_and_pooling_gives_one_vector(positions, pool):
  module = text(
    vocab_size=VOCAB,
    max_tokens=MAX_TOKENS,
    size=SIZE,
    positions=positions,
    pool=pool,
  )

  def run(module, ids):
    return module.pool(module(ids, train=False))

  out, variables = jax.eval_shape(
    lambda ids: module.init_with_output(KEY, ids, method=run), BATCH
  )
  assert out.shape == (2, 16)
  learned = "positions" in variables["params"]["stem"]
  assert learned == (positions == "learned")
