import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core import errors
from mmjax.core.interfaces import ModelInfo, Objective
from mmjax.objectives.classification import Classification

C, D = 5, 4
INFO = ModelInfo(embed_dim=D)
KEY = jax.random.key(0)


@pytest.fixture
def case(rng):
  pooled = jnp.asarray(rng.normal(size=(4, D)), jnp.float32)
  kernel = rng.normal(size=(D, C)).astype(np.float32)
  batch = {
    "label": jnp.asarray([1, 4, 0, 2], jnp.int32),
    "example_mask": jnp.asarray([True, True, True, False]),
  }
  return batch, pooled, kernel


def _results(pooled, kernel):
  return {
    ("pool", "image", "clean"): pooled,
    ("head", "label", "clean"): lambda x: x @ kernel,
  }


def _by_hand(batch, pooled, kernel, by_hand, smoothing):
  """Cross-entropy to a target of which a share is spread over all classes."""
  total = 0.0
  for i in range(3):  # The fourth example is filler.
    logits = np.asarray(pooled[i], np.float64) @ kernel
    for c in range(C):
      share = smoothing / C + (1 - smoothing) * (c == batch["label"][i])
      total += share * by_hand.cross_entropy(logits, c)
  return total


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_loss_is_that_of_the_smoothed_labels(
  case, table, by_hand, smoothing
):
  batch, pooled, kernel = case
  objective = Classification(num_classes=C, smoothing=smoothing)
  loss, metrics = objective(
    table(_results(pooled, kernel)), batch, rng=KEY, train=True
  )
  np.testing.assert_allclose(
    loss.total, _by_hand(*case, by_hand, smoothing), rtol=1e-5
  )
  assert loss.weight == 3
  right = [
    np.argmax(np.asarray(pooled[i]) @ kernel) == batch["label"][i]
    for i in range(3)
  ]
  accuracy = metrics["accuracy"]
  assert (accuracy.total, accuracy.weight) == (sum(right), 3)


def test_labels_are_smoothed_in_training_only(case, table, by_hand):
  batch, pooled, kernel = case
  objective = Classification(num_classes=C, smoothing=0.3)
  loss, _ = objective(
    table(_results(pooled, kernel)), batch, rng=KEY, train=False
  )
  np.testing.assert_allclose(
    loss.total, _by_hand(*case, by_hand, 0.0), rtol=1e-5
  )


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_chance_is_the_loss_of_uniform_logits(case, table, smoothing):
  batch, pooled, kernel = case
  objective = Classification(num_classes=C, smoothing=smoothing)
  apply = table(_results(pooled, np.zeros_like(kernel)))
  loss, _ = objective(apply, batch, rng=KEY, train=True)
  np.testing.assert_allclose(objective.chance(INFO, 4), loss.mean, rtol=1e-6)
  np.testing.assert_allclose(loss.mean, math.log(C), rtol=1e-6)


def test_another_modality_label_and_head_may_be_named(table):
  objective = Classification(
    num_classes=2, modality="text", label="mood", head="feel"
  )
  apply = table(
    {
      ("pool", "text", "clean"): jnp.eye(2),
      ("head", "feel", "clean"): lambda x: 10 * x,
    }
  )
  _, metrics = objective(
    apply, {"mood": jnp.asarray([0, 1])}, rng=KEY, train=True
  )
  assert metrics["accuracy"].mean == 1
  fields = objective.fields(INFO)
  assert {name: spec.dtype for name, spec in fields.items()} == {
    "text": "int32",
    "mood": "int32",
  }
  assert objective.heads(INFO) == {"feel": {"name": "linear", "num_classes": 2}}
  assert isinstance(objective, Objective)


def test_several_labels_are_a_yes_or_no_for_each_class(case, table):
  batch, pooled, kernel = case
  # Shares count too; the fourth example is filler.
  labels = np.asarray(
    [[1, 0, 0, 1, 0.3], [0] * 5, [0.6, 1, 1, 0, 0], [1] * 5], np.float32
  )
  batch = {**batch, "label": jnp.asarray(labels)}
  objective = Classification(num_classes=C, multi_label=True)
  loss, metrics = objective(
    table(_results(pooled, kernel)), batch, rng=KEY, train=True
  )
  total, both, said, there = 0.0, 0, 0, 0
  for i in range(3):
    for c in range(C):
      z = float(np.asarray(pooled[i], np.float64) @ kernel[:, c])
      p, y = 1 / (1 + math.exp(-z)), float(labels[i, c])
      total -= y * math.log(p) + (1 - y) * math.log(1 - p)
      both += p > 0.5 and y > 0.5
      said += p > 0.5
      there += y > 0.5
  np.testing.assert_allclose(loss.total, total, rtol=1e-5)
  assert loss.weight == 3 * C
  precision, recall = metrics["precision"], metrics["recall"]
  assert (precision.total, precision.weight) == (both, said)
  assert (recall.total, recall.weight) == (both, there)
  assert str(objective.fields(INFO)["label"]) == "float32[b, 5]"
  zeros = table(_results(pooled, np.zeros_like(kernel)))
  loss, _ = objective(zeros, batch, rng=KEY, train=True)
  np.testing.assert_allclose(objective.chance(INFO, 4), loss.mean, rtol=1e-6)


@pytest.mark.parametrize("view", ["clean", "masked"])
def test_a_modality_may_be_fused_with_others_first(case, table, view):
  batch, pooled, kernel = case
  apply = table(
    {
      ("pool", "text", ("image",), view): pooled,
      ("head", "label", "clean"): lambda x: x @ kernel,
    }
  )
  objective = Classification(
    num_classes=C, modality="text", given=("image",), view=view
  )
  loss, _ = objective(apply, batch, rng=KEY, train=True)
  assert loss.weight == 3
  assert set(objective.fields(INFO)) == {"text", "image", "label"}


def test_smoothing_of_several_labels_is_refused():
  with pytest.raises(errors.UserError, match="leave it 0"):
    Classification(num_classes=C, multi_label=True, smoothing=0.1)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_smoothing_outside_of_its_range_is_refused(smoothing):
  with pytest.raises(errors.UserError, match=r"expected \[0, 1\)"):
    Classification(num_classes=C, smoothing=smoothing)
