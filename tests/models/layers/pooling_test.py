import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core import errors, precision, trees
from mmjax.core.sequence import Sequence
from mmjax.models.layers.pooling import KINDS, Pool

KEY = jax.random.key(0)
PREFIX = 1


@pytest.fixture
def sequence(rng):
  x = rng.normal(size=(3, PREFIX + 4, 8)).astype(np.float32)
  mask = np.ones((3, PREFIX + 4), bool)
  mask[1, 3:] = False
  return Sequence(
    jnp.asarray(x), jnp.asarray(mask), num_prefix=PREFIX, num_content=4
  )


def test_cls_takes_the_first_token(sequence):
  got = Pool("cls").apply({}, sequence)
  np.testing.assert_array_equal(got, sequence.x[:, 0])


def test_last_takes_the_last_token_that_counts(sequence):
  got = Pool("last").apply({}, sequence)
  np.testing.assert_array_equal(got[0], sequence.x[0, 4])
  np.testing.assert_array_equal(got[1], sequence.x[1, 2])


def test_mean_is_over_the_content_that_counts(sequence):
  got = Pool("mean").apply({}, sequence)
  for i in range(3):
    rows = [
      np.asarray(sequence.x[i, j], np.float64)
      for j in range(PREFIX, PREFIX + 4)
      if sequence.mask[i, j]
    ]
    np.testing.assert_allclose(got[i], np.mean(rows, axis=0), rtol=1e-5)


def test_cls_mean_is_both_side_by_side(sequence):
  got = Pool("cls_mean").apply({}, sequence)
  both = [Pool(kind).apply({}, sequence) for kind in ("cls", "mean")]
  np.testing.assert_array_equal(got, np.concatenate(both, axis=1))


def test_a_norm_may_come_after(sequence, randomized, by_hand):
  module = Pool("mean", norm_epsilon=1e-3)
  params = randomized(module, sequence)
  got = module.apply({"params": params}, sequence)
  mean = Pool("mean").apply({}, sequence)
  expected = by_hand.layer_norm(params["norm_after"], mean, 1e-3)
  np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_mean_of_nothing_is_zero(sequence):
  got = Pool("mean").apply(
    {}, sequence.replace(mask=jnp.zeros_like(sequence.mask))
  )
  np.testing.assert_array_equal(got, 0.0)


def test_map_attends_with_a_learned_query(sequence, randomized, by_hand):
  module = Pool("map", num_heads=2, mlp_dim=6)
  params = randomized(module, sequence)
  # Query; attention; norm; the two projections.
  attention = 4 * (8 * 8 + 8)
  assert trees.num_params(params) == (
    8 + attention + 2 * 8 + (8 * 6 + 6) + (6 * 8 + 8)
  )
  got = module.apply({"params": params}, sequence)
  for i in range(3):
    x = by_hand.attention(
      params["attention"],
      params["query"][0],
      sequence.x[i],
      np.asarray(sequence.mask[i])[None],
    )
    x = x + by_hand.mlp(params["mlp"], by_hand.layer_norm(params["norm"], x))
    np.testing.assert_allclose(got[i], x[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["last", "mean", "map"])
def test_what_does_not_count_does_not_matter(sequence, randomized, kind):
  module = Pool(kind, num_heads=2, mlp_dim=6)
  variables = {"params": randomized(module, sequence)} if kind == "map" else {}
  other = sequence.replace(
    x=jnp.where(sequence.mask[:, :, None], sequence.x, 7.0)
  )
  np.testing.assert_array_equal(
    module.apply(variables, sequence), module.apply(variables, other)
  )


@pytest.mark.parametrize("kind", KINDS)
def test_a_pooled_sequence_keeps_its_dtype(sequence, kind):
  module = Pool(
    kind, num_heads=2, mlp_dim=6, precision=precision.POLICIES["bfloat16"]
  )
  low = sequence.replace(x=sequence.x.astype(jnp.bfloat16))
  got, variables = jax.eval_shape(lambda: module.init_with_output(KEY, low))
  assert got.dtype == jnp.bfloat16
  assert all(p.dtype == jnp.float32 for p in jax.tree.leaves(variables))


def test_an_unknown_kind_is_refused_with_the_nearest_name(sequence):
  with pytest.raises(errors.UserError, match="Did you mean 'mean'"):
    Pool("means").init(KEY, sequence)


def test_first_takes_the_first_token_of_the_content(sequence):
  got = Pool("first").apply({}, sequence)
  np.testing.assert_array_equal(got, sequence.x[:, PREFIX])


def test_a_projection_and_tanh_may_come_after(sequence, randomized, by_hand):
  module = Pool("first", tanh=True)
  params = randomized(module, sequence)
  assert trees.num_params(params) == 8 * 8 + 8
  got = module.apply({"params": params}, sequence)
  expected = by_hand.linear(params["projection"], sequence.x[:, PREFIX])
  np.testing.assert_allclose(got, np.tanh(expected), rtol=1e-4, atol=1e-5)


def test_a_projection_comes_after_without_tanh(sequence, randomized, by_hand):
  module = Pool("cls", projection=3)
  params = randomized(module, sequence)
  got = module.apply({"params": params}, sequence)
  expected = by_hand.linear(params["projection"], sequence.x[:, 0])
  assert expected.shape == (3, 3)
  np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
