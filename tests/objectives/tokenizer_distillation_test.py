from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core import errors
from mmjax.core.interfaces import ModelInfo, Objective
from mmjax.models.visual_tokenizer.tokenizer import Reconstruction
from mmjax.objectives.tokenizer_distillation import TokenizerDistillation

KEY = jax.random.key(0)
INFO = ModelInfo(embed_dim=4)
CODES = np.asarray([[1, 1], [3, 1], [2, 0]], np.int32)


@pytest.fixture(scope="module")
def case():
  rng = np.random.default_rng(3)
  made, target = rng.normal(size=(2, 3, 2, 5)).astype(np.float32)
  commitment = rng.random((3, 2)).astype(np.float32)
  return made, target, commitment


def _loss(made, target, commitment, mask=(True, True, False), **options):
  result = Reconstruction(
    None,
    jnp.asarray(CODES),
    jnp.asarray(commitment),
    jnp.float32(2.0),
    jnp.asarray(made),
  )

  def apply(method, *args, view="clean", by="model"):
    assert view == "clean"
    return {
      ("reconstruct", "image", "model"): result,
      ("encode", "image", "teacher"): SimpleNamespace(
        content=jnp.asarray(target)
      ),
      ("codebook_size", "image", "model"): 8,
    }[method, *args, by]

  batch = {"image": None, "example_mask": jnp.asarray(mask)}
  return TokenizerDistillation(**options)(apply, batch, rng=KEY, train=True)


def _by_hand(made, target, commitment, weight):
  total = 0.0
  for b in range(2):  # The third example is filler.
    for n in range(2):
      o, t = made[b, n].astype(np.float64), target[b, n].astype(np.float64)
      cosine = o @ t / np.linalg.norm(o) / np.linalg.norm(t)
      total += (1 - cosine + weight * commitment[b, n]) / 2
  return total


def test_the_loss_is_the_distance_of_directions_and_commitment(case):
  loss, metrics = _loss(*case, commitment_weight=0.5)
  np.testing.assert_allclose(loss.total, _by_hand(*case, 0.5), rtol=1e-5)
  assert loss.weight == 2 and metrics["restarted_codes"].mean == 2
  np.testing.assert_allclose(
    metrics["cosine_distance"].total, _by_hand(*case, 0.0), rtol=1e-5
  )
  # Codes 1, 1, 3, 1 of 8.
  assert metrics["batch_usage"].mean == 2 / 8
  entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
  np.testing.assert_allclose(
    metrics["perplexity"].mean, np.exp(entropy), rtol=1e-5
  )


def test_only_directions_count(case):
  made, target, commitment = case
  loss, _ = _loss(3 * made, 0.1 * target, commitment)
  np.testing.assert_allclose(loss.total, _loss(*case)[0].total, rtol=1e-4)


def test_what_does_not_count_may_be_nan(case):
  made, target, commitment = (np.array(x) for x in case)
  for x in (made, target, commitment):
    x[2] = np.nan

  @jax.jit
  @jax.grad
  def grad(made):
    return _loss(made, jnp.asarray(target), commitment)[0].total

  np.testing.assert_allclose(
    _loss(made, target, commitment)[0].total, _loss(*case)[0].total
  )
  got = np.asarray(grad(jnp.asarray(made)))
  assert np.all(np.isfinite(got)) and np.all(got[2] == 0) and np.all(got[:2])
  nothing, _ = _loss(made, target, commitment, mask=(False,) * 3)
  assert nothing.mean == 0


def test_features_of_length_zero_have_finite_gradients(case):
  _, target, commitment = case

  def total(made):
    return _loss(made, jnp.asarray(target), commitment)[0].total

  grads = jax.jit(jax.grad(total))(jnp.zeros((3, 2, 5)))
  assert np.all(np.isfinite(grads))


def test_parts_that_do_not_fit_are_refused(case):
  made, target, commitment = case
  with pytest.raises(errors.UserError, match="2 codes to 5.*2 tokens of 4"):
    _loss(made, target[:, :, :4], commitment)
  with pytest.raises(errors.UserError, match="vq_kd"):
    _loss_without_features(target, commitment)


def _loss_without_features(target, commitment):
  result = SimpleNamespace(features=None, codes=CODES, commitment=commitment)

  def apply(method, *args, by="model"):
    return result if by == "model" else SimpleNamespace(content=target)

  return TokenizerDistillation()(apply, {}, rng=KEY, train=True)


def test_it_declares_its_field_no_head_and_no_chance():
  objective = TokenizerDistillation()
  assert isinstance(objective, Objective)
  assert list(objective.fields(INFO)) == ["image"]
  assert objective.heads(INFO) == {} and objective.chance(INFO, 4) is None
  floor = TokenizerDistillation(min_usage=0.5, after_steps=0)
  assert "40.0%" in floor.check_metrics({"step": 1, "codes_usage": 0.4})
