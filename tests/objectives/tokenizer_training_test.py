import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core import errors
from mmjax.core.interfaces import ModelInfo, Objective
from mmjax.models.visual_tokenizer.tokenizer import Reconstruction
from mmjax.objectives.tokenizer_training import TokenizerTraining

INFO = ModelInfo(embed_dim=4)
KEY = jax.random.key(0)
NUM_CODES = 8


@pytest.fixture
def case(rng):
  batch = {
    "image": jnp.asarray(rng.integers(0, 256, (3, 4, 4, 3)), jnp.uint8),
    "example_mask": jnp.asarray([True, True, False]),
  }
  result = Reconstruction(
    jnp.asarray(rng.random((3, 4, 4, 3)), jnp.float32),
    # Of the counted ones, code 1 four times, 2 and 3 twice.
    jnp.asarray([[1, 1, 2, 3], [3, 1, 2, 1], [5, 6, 7, 0]], jnp.int32),
    jnp.asarray(rng.random((3, 4)), jnp.float32),
    jnp.float32(2.0),
  )
  return batch, result


def _run(objective, case, table):
  batch, result = case
  apply = table(
    {
      ("reconstruct", "image", "clean"): result,
      ("codebook_size", "image", "clean"): NUM_CODES,
    }
  )
  return objective(apply, batch, rng=KEY, train=True)


def _means(batch, result, i):
  """Squared and absolute error on the scale -1..1, and commitment."""
  squared = absolute = 0.0
  pixels = list(np.ndindex(4, 4, 3))
  for p in pixels:
    wanted = float(batch["image"][i][p]) / 127.5 - 1
    got = 2 * float(result.image[i][p]) - 1
    squared += (got - wanted) ** 2 / len(pixels)
    absolute += abs(got - wanted) / len(pixels)
  return squared, absolute, np.asarray(result.commitment[i], np.float64).mean()


def test_the_loss_adds_errors_and_commitment(case, table):
  objective = TokenizerTraining(commitment_weight=0.5, l1_weight=2.0)
  loss, metrics = _run(objective, case, table)
  squared, absolute, commitment = np.sum(
    [_means(*case, i) for i in range(2)], axis=0
  )  # The third example is filler.
  np.testing.assert_allclose(
    loss.total, squared + 2 * absolute + 0.5 * commitment, rtol=1e-5
  )
  assert loss.weight == 2
  np.testing.assert_allclose(
    metrics["squared_error"].mean, squared / 2, rtol=1e-5
  )
  np.testing.assert_allclose(
    metrics["commitment"].mean, commitment / 2, rtol=1e-5
  )
  assert metrics["restarted_codes"].mean == 2


def test_a_perfect_reconstruction_costs_nothing(case, table):
  batch, result = case
  image = batch["image"].astype(jnp.float32) / 255
  perfect = result.replace(
    image=image, commitment=jnp.zeros_like(result.commitment)
  )
  loss, _ = _run(TokenizerTraining(l1_weight=1.0), (batch, perfect), table)
  np.testing.assert_allclose(loss.total, 0.0, atol=1e-10)


def test_codebook_use_counts_the_examples_that_count(case, table):
  _, metrics = _run(TokenizerTraining(), case, table)
  usage = metrics["batch_usage"]
  assert (usage.total, usage.weight) == (3, NUM_CODES)
  # exp of the entropy of (1/2, 1/4, 1/4): 1.5 bits.
  np.testing.assert_allclose(metrics["perplexity"].mean, 2**1.5, rtol=1e-5)


def test_a_batch_of_filler_alone_is_finite(case, table):
  batch, result = case
  batch = {**batch, "example_mask": jnp.zeros(3, bool)}
  loss, metrics = _run(TokenizerTraining(), (batch, result), table)
  assert loss.mean == 0
  assert all(np.all(np.isfinite(m.mean)) for m in metrics.values())
  assert metrics["batch_usage"].total == 0


def test_it_declares_its_field_no_head_and_no_chance():
  objective = TokenizerTraining()
  assert isinstance(objective, Objective)
  fields = objective.fields(INFO)
  assert {name: spec.dtype for name, spec in fields.items()} == {
    "image": "uint8"
  }
  assert objective.heads(INFO) == {}
  assert objective.chance(INFO, 4) is None


def test_training_also_counts_how_often_each_code_is_used(case, table):
  _, metrics = _run(TokenizerTraining(), case, table)
  np.testing.assert_array_equal(
    metrics["codes"].total, [0, 4, 2, 2, 0, 0, 0, 0]
  )
  batch, result = case
  apply = table(
    {
      ("reconstruct", "image", "clean"): result,
      ("codebook_size", "image", "clean"): NUM_CODES,
    }
  )
  _, metrics = TokenizerTraining()(apply, batch, rng=KEY, train=False)
  assert "codes" not in metrics  # Evaluators add numbers.


def test_clips_are_compared_over_all_frames(case, table):
  batch, result = case
  clips = {
    "video": jnp.stack([batch["image"], 255 - batch["image"]], axis=1),
    "example_mask": batch["example_mask"],
  }
  made = result.replace(image=jnp.stack([result.image, result.image], axis=1))
  apply = table(
    {
      ("reconstruct", "video", "clean"): made,
      ("codebook_size", "video", "clean"): NUM_CODES,
    }
  )
  objective = TokenizerTraining(image="video", commitment_weight=0.0)
  loss, _ = objective(apply, clips, rng=KEY, train=True)
  inverted = {**batch, "image": 255 - batch["image"]}
  expected = sum(
    (_means(batch, result, i)[0] + _means(inverted, result, i)[0]) / 2
    for i in range(2)
  )
  np.testing.assert_allclose(loss.total, expected, rtol=1e-5)


def test_a_floor_of_usage_says_what_is_wrong_and_what_to_try():
  objective = TokenizerTraining(min_usage=0.25, after_steps=100)
  row = {"step": 100, "codes_usage": 0.2, "codes_perplexity": 3.5}
  message = objective.check_metrics(row)
  assert "20.0% of the codes" in message and "min_usage=0.25" in message
  assert "3.5" in message and "fsq" in message
  for fine in (
    {**row, "step": 99},
    {**row, "codes_usage": 0.25},
    {"step": 100},
  ):
    assert objective.check_metrics(fine) is None
  assert TokenizerTraining().check_metrics({**row, "codes_usage": 0.0}) is None
  with pytest.raises(errors.UserError, match="min_usage=25"):
    TokenizerTraining(min_usage=25.0)


def test_a_tokenizer_that_makes_features_is_refused(case, table):
  batch, result = case
  with pytest.raises(errors.UserError, match="tokenizer_distillation"):
    _run(TokenizerTraining(), (batch, result.replace(image=None)), table)
