import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.models.visual_tokenizer.codebook import (
  Codebook,
  CodebookState,
  nearest,
  update,
)

K, C, DECAY = 6, 3, 0.9
KEY = jax.random.key(0)


def _unit(x):
  return x / np.linalg.norm(x, axis=-1, keepdims=True)


def _nearest_by_hand(vectors, embedding):
  vectors = np.asarray(vectors, np.float64)
  embedding = np.asarray(embedding, np.float64)
  return np.asarray(
    [np.argmin([np.sum((v - e) ** 2) for e in embedding]) for v in vectors]
  )


@pytest.fixture(scope="module")
def state():
  rng = np.random.default_rng(9)
  embedding = rng.normal(size=(K, C))
  counts = rng.uniform(0.5, 2.0, K)
  return CodebookState(
    jnp.asarray(embedding, jnp.float32),
    jnp.asarray(counts, jnp.float32),
    jnp.asarray(embedding * counts[:, None], jnp.float32),
    jnp.asarray([0, 1, 2, 0, 3, 1], jnp.int32),
  )


@pytest.fixture(scope="module")
def vectors():
  rng = np.random.default_rng(10)
  return jnp.asarray(rng.normal(size=(8, C)), jnp.float32)


CODES = np.asarray([0, 0, 5, 3, 0, 5, 3, 3], np.int32)  # Not 1, 2, 4.


@functools.partial(jax.jit, static_argnames=("restart_after", "normalize"))
def _update(state, vectors, codes, rng, *, restart_after, normalize):
  return update(
    state,
    vectors,
    codes,
    rng,
    decay=DECAY,
    restart_after=restart_after,
    normalize=normalize,
  )


def _apply(module, state, vectors, *, train, key=KEY):
  return module.apply(
    {"codebook": {"state": state}},
    vectors,
    train=train,
    rngs={"codebook": key},
    mutable=["codebook"],
  )


def test_nearest_is_that_of_a_search_over_all_codes(rng):
  vectors = rng.normal(size=(50, 4)).astype(np.float32)
  # Codes of unlike length: the largest product is not the nearest.
  embedding = rng.normal(size=(20, 4)) * rng.uniform(0.1, 5, (20, 1))
  embedding = embedding.astype(np.float32)
  expected = _nearest_by_hand(vectors, embedding)
  assert np.any(expected != np.argmax(vectors @ embedding.T, axis=1))
  np.testing.assert_array_equal(
    nearest(jnp.asarray(vectors), jnp.asarray(embedding)), expected
  )


@pytest.mark.parametrize("normalize", [False, True])
def test_an_update_follows_the_formulas(state, vectors, normalize):
  got, restarted = _update(
    state, vectors, CODES, KEY, restart_after=100, normalize=normalize
  )
  x = np.asarray(vectors, np.float64)
  for k in range(K):
    mine = [x[i] for i in range(len(x)) if CODES[i] == k]
    count = DECAY * float(state.counts[k]) + (1 - DECAY) * len(mine)
    total = DECAY * np.asarray(state.sums[k], np.float64)
    total = total + (1 - DECAY) * np.sum(mine, axis=0) if mine else total
    code = total / count
    np.testing.assert_allclose(got.counts[k], count, rtol=1e-5)
    np.testing.assert_allclose(got.sums[k], total, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
      got.embedding[k],
      _unit(code) if normalize else code,
      rtol=1e-5,
      atol=1e-6,
    )
    assert got.idle[k] == (0 if mine else int(state.idle[k]) + 1)
  assert restarted == 0


def test_many_updates_bring_a_code_to_the_mean_of_its_vectors(state, vectors):
  for _ in range(100):  # 0.9^100 = 3e-5 of the start is left.
    state, _ = _update(
      state, vectors, CODES, KEY, restart_after=1000, normalize=False
    )
  mean = np.asarray(vectors)[CODES == 3].mean(axis=0)
  np.testing.assert_allclose(state.embedding[3], mean, atol=1e-3)


def test_codes_restart_after_that_many_steps_without_use(state, vectors):
  # Idle for 0, 1, 2, 0, 3, 1 steps: this is the third for code 2 and the
  # fourth for code 4; code 1 has one to go.
  got, restarted = _update(
    state, vectors, CODES, KEY, restart_after=3, normalize=False
  )
  assert restarted == 2
  np.testing.assert_array_equal(got.idle, [0, 2, 0, 0, 0, 0])
  embedding = np.asarray(got.embedding)
  for k in (2, 4):
    distances = np.abs(np.asarray(vectors) - embedding[k]).max(axis=1)
    assert distances.min() < 1e-6  # It is one of the batch.
    # What a code of average use gets in one step.
    np.testing.assert_allclose(got.counts[k], 0.1 * 8 / 6, rtol=1e-5)
  np.testing.assert_allclose(embedding[1], state.embedding[1], rtol=1e-5)


def test_where_a_code_restarts_follows_the_key(vectors):
  many = CodebookState(
    jnp.zeros((64, C)),
    jnp.zeros(64),
    jnp.zeros((64, C)),
    jnp.full(64, 5, jnp.int32),
  )

  def run(seed):
    key = jax.random.key(seed)
    return np.asarray(
      _update(many, vectors, CODES, key, restart_after=5, normalize=False)[
        0
      ].embedding
    )

  np.testing.assert_array_equal(run(1), run(1))
  assert np.any(run(1) != run(2))


@pytest.mark.parametrize("normalize", [False, True])
def test_vectors_become_their_nearest_codes(state, vectors, normalize):
  module = Codebook(K, C, normalize=normalize)
  if normalize:
    state = state.replace(embedding=jnp.asarray(_unit(state.embedding)))
  got, _ = _apply(module, state, vectors.reshape(2, 4, C), train=False)
  x = np.asarray(vectors, np.float64)
  x = _unit(x) if normalize else x
  codes = _nearest_by_hand(x, state.embedding)
  picked = np.asarray(state.embedding, np.float64)[codes]
  np.testing.assert_array_equal(got.codes, codes.reshape(2, 4))
  np.testing.assert_allclose(
    got.vectors, picked.reshape(2, 4, C), rtol=1e-5, atol=1e-6
  )
  np.testing.assert_allclose(
    got.commitment,
    np.sum((x - picked) ** 2, axis=1).reshape(2, 4),
    rtol=1e-5,
    atol=1e-6,
  )
  looked_up = module.apply(
    {"codebook": {"state": state}}, got.codes, method="lookup"
  )
  np.testing.assert_array_equal(
    looked_up, np.asarray(state.embedding)[np.asarray(got.codes)]
  )


def test_gradients_pass_straight_through(state, vectors, rng):
  module = Codebook(K, C, normalize=False)
  weights = jnp.asarray(rng.normal(size=(2, 4, C)), jnp.float32)

  def total(x, what):
    got, _ = _apply(module, state, x, train=False)
    return jnp.sum(weights * got.vectors if what else got.commitment)

  x = vectors.reshape(2, 4, C)
  grad = jax.grad(total)
  # As if quantising were the identity.
  np.testing.assert_allclose(grad(x, True), weights, rtol=1e-6)
  # d |v - e|^2 / dv with the code held fixed.
  picked = np.asarray(state.embedding)[
    _nearest_by_hand(vectors, state.embedding)
  ]
  np.testing.assert_allclose(
    grad(x, False), 2 * (x - picked.reshape(2, 4, C)), rtol=1e-5, atol=1e-6
  )


def test_nothing_is_updated_outside_of_training(state, vectors):
  module = Codebook(K, C, restart_after=1)
  got, changed = _apply(module, state, vectors[None], train=False)
  assert got.restarted == 0
  for before, after in zip(
    jax.tree.leaves(state), jax.tree.leaves(changed), strict=True
  ):
    np.testing.assert_array_equal(before, after)


def test_training_updates_with_the_codes_it_returns(state, vectors):
  module = Codebook(K, C, DECAY, restart_after=100, normalize=False)
  got, changed = _apply(module, state, vectors[None], train=True)
  uses = np.bincount(_nearest_by_hand(vectors, state.embedding), minlength=K)
  np.testing.assert_allclose(
    changed["codebook"]["state"].counts,
    DECAY * np.asarray(state.counts) + (1 - DECAY) * uses,
    rtol=1e-5,
  )
  # The vectors are those of the codebook before the step.
  np.testing.assert_allclose(
    got.vectors[0],
    np.asarray(state.embedding)[np.asarray(got.codes[0])],
    rtol=1e-5,
    atol=1e-6,
  )


def test_codes_that_the_first_batch_does_not_use_move_onto_it(vectors):
  module = Codebook(K, C)
  variables = module.init(
    {"params": KEY, "codebook": KEY}, vectors[None], train=True
  )
  state = variables["codebook"]["state"]
  np.testing.assert_allclose(
    np.linalg.norm(np.asarray(state.embedding), axis=1), 1.0, rtol=1e-5
  )
  got, changed = _apply(module, state, vectors[None], train=True)
  used = np.unique(got.codes)
  assert got.restarted == K - len(used)
  after = np.asarray(changed["codebook"]["state"].embedding)
  for k in set(range(K)) - set(used.tolist()):
    distances = np.abs(_unit(np.asarray(vectors)) - after[k]).max(axis=1)
    assert distances.min() < 1e-5


def test_there_are_no_parameters(vectors):
  shapes = jax.eval_shape(
    lambda: Codebook(K, C).init(KEY, vectors[None], train=False)
  )
  assert set(shapes) == {"codebook"}


def test_bfloat16_vectors_are_quantised_in_float32(state, vectors):
  module = Codebook(K, C, normalize=False)
  got, _ = _apply(
    module, state, vectors[None].astype(jnp.bfloat16), train=False
  )
  assert got.vectors.dtype == got.commitment.dtype == jnp.float32
  rounded = np.asarray(vectors.astype(jnp.bfloat16), np.float64)
  np.testing.assert_array_equal(
    got.codes[0], _nearest_by_hand(rounded, state.embedding)
  )
