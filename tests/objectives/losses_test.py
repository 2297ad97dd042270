import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.objectives import losses

V = 7


def _logits(rng, *lead):
  return jnp.asarray(3 * rng.normal(size=(*lead, V)), jnp.float32)


def _labels(rng, *lead):
  return jnp.asarray(rng.integers(0, V, lead), jnp.int32)


def test_binary_cross_entropy_is_that_of_the_sigmoid(rng):
  logits, labels = 3 * rng.normal(size=7), rng.random(7)
  got = losses.binary_cross_entropy(
    jnp.asarray(logits, jnp.bfloat16), jnp.asarray(labels, jnp.float32)
  )
  rounded = np.asarray(jnp.asarray(logits, jnp.bfloat16), np.float64)
  p = 1 / (1 + np.exp(-rounded))
  expected = -labels * np.log(p) - (1 - labels) * np.log(1 - p)
  assert got.dtype == jnp.float32
  np.testing.assert_allclose(got, expected, rtol=1e-5)
  far = losses.binary_cross_entropy(jnp.asarray([500.0]), jnp.zeros(1))
  np.testing.assert_allclose(far, [500.0])


@pytest.mark.parametrize("lead", [(), (4,), (2, 3)])
def test_cross_entropy_of_each_label_is_that_by_hand(rng, by_hand, lead):
  logits, labels = _logits(rng, *lead), _labels(rng, *lead)
  got = losses.cross_entropy(logits, labels)
  assert got.shape == lead
  for i in np.ndindex(*lead):
    np.testing.assert_allclose(
      got[i], by_hand.cross_entropy(logits[i], labels[i]), rtol=1e-5
    )


def test_cross_entropy_is_finite_for_huge_logits():
  logits = jnp.asarray([[1e4, 0.0, -1e4]])
  got = losses.cross_entropy(logits, jnp.asarray([2]))
  np.testing.assert_allclose(got, [2e4], rtol=1e-6)


def test_the_gradient_of_cross_entropy_is_softmax_minus_one_hot(rng):
  logits, labels = _logits(rng, 3), _labels(rng, 3)
  got = jax.grad(lambda x: jnp.sum(losses.cross_entropy(x, labels)))(logits)
  probs = np.exp(np.asarray(logits, np.float64))
  probs /= probs.sum(axis=1, keepdims=True)
  np.testing.assert_allclose(got, probs - np.eye(V)[labels], atol=1e-6)


def test_bfloat16_logits_are_summed_in_float32(rng, by_hand):
  logits, labels = _logits(rng, 5).astype(jnp.bfloat16), _labels(rng, 5)
  got = losses.cross_entropy(logits, labels)
  assert got.dtype == jnp.float32
  for i in range(5):
    expected = by_hand.cross_entropy(logits[i], labels[i])
    np.testing.assert_allclose(got[i], expected, rtol=1e-5)


def test_a_masked_sum_is_that_of_the_slice(rng):
  values = rng.normal(size=(4, 5)).astype(np.float32)
  mask = rng.random((4, 5)) < 0.5
  got = losses.masked_sum(jnp.asarray(values), jnp.asarray(mask))
  np.testing.assert_allclose(
    got.total, values[mask].astype(np.float64).sum(), rtol=1e-5
  )
  assert got.weight == mask.sum()


def test_the_gradient_of_a_masked_sum_is_the_mask(rng):
  mask = jnp.asarray(rng.random((4, 5)) < 0.5)
  got = jax.grad(lambda x: losses.masked_sum(x, mask).total)(jnp.ones((4, 5)))
  np.testing.assert_array_equal(got, mask.astype(jnp.float32))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_does_not_count_may_be_anything(bad):
  mask = jnp.asarray([True, False, True])
  values = jnp.asarray([1.0, bad, 2.0])
  got, grad = jax.value_and_grad(lambda x: losses.masked_sum(x, mask).mean)(
    values
  )
  assert got == 1.5
  np.testing.assert_array_equal(grad, [0.5, 0.0, 0.5])


def test_masked_cross_entropy_is_that_of_the_slice_with_its_gradient(rng):
  logits, labels = _logits(rng, 6), _labels(rng, 6)
  mask = jnp.asarray([True, False, True, True, False, False])
  rows = np.flatnonzero(mask)

  def masked(logits):
    values = losses.cross_entropy(logits, labels)
    return losses.masked_sum(values, mask).mean

  def sliced(logits):
    return jnp.mean(losses.cross_entropy(logits[rows], labels[rows]))

  got, got_grad = jax.value_and_grad(masked)(logits)
  expected, expected_grad = jax.value_and_grad(sliced)(logits)
  np.testing.assert_allclose(got, expected, rtol=1e-5)
  np.testing.assert_allclose(got_grad, expected_grad, rtol=1e-5, atol=1e-7)


def test_nothing_that_counts_gives_zero_and_a_finite_gradient(rng):
  logits, labels = _logits(rng, 3), _labels(rng, 3)

  def loss(logits):
    values = losses.cross_entropy(logits, labels)
    return losses.masked_sum(values, jnp.zeros(3, bool)).mean

  value, grad = jax.value_and_grad(loss)(logits)
  assert value == 0
  np.testing.assert_array_equal(grad, 0.0)


def test_accuracy_counts_the_highest_logits_that_count():
  logits = jnp.asarray([[0.0, 2, 1], [5, 0, 0], [0, 0, 1], [0, 1, 0]])
  labels = jnp.asarray([1, 0, 0, 1])  # Right, right, wrong, right.
  mask = jnp.asarray([True, True, True, False])
  got = losses.accuracy(logits, labels, mask)
  assert (got.total, got.weight) == (2, 3)


def test_a_constant_is_a_mean_over_one_thing():
  got = losses.constant(jnp.float32(2.5))
  assert (got.total, got.weight, got.mean) == (2.5, 1, 2.5)


def test_examples_count_that_are_real_and_have_the_fields():
  like = jnp.zeros((3, 2))
  np.testing.assert_array_equal(losses.counted({}, (), like), [True] * 3)
  batch = {
    "example_mask": jnp.asarray([True, True, False]),
    "image_present": jnp.asarray([False, True, True]),
    "text_present": jnp.asarray([True, False, True]),
  }
  for fields, expected in [
    ((), [True, True, False]),
    (("image",), [False, True, False]),
    (("text", "audio"), [True, False, False]),
    (("image", "text"), [False, False, False]),
  ]:
    np.testing.assert_array_equal(losses.counted(batch, fields, like), expected)
