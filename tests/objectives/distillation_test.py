import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core import errors
from mmjax.core.interfaces import ModelInfo, Objective
from mmjax.core.sequence import Sequence
from mmjax.objectives.distillation import Distillation

D, E, V = 4, 6, 5
INFO = ModelInfo(
  embed_dim=D,
  widths={"image": D},
  teacher=ModelInfo(embed_dim=E, widths={"image": E}),
)
KEY = jax.random.key(0)


@pytest.fixture
def case(rng):
  """Results of the model and the teacher; the third example is filler."""
  sequences = {
    by: Sequence(
      jnp.asarray(rng.normal(size=(3, 1 + 4, d)), jnp.float32),
      jnp.asarray([[True] * 5, [True, True, True, True, False], [True] * 5]),
      num_prefix=1,
      num_content=4,
    )
    for by, d in (("model", D), ("teacher", E))
  }
  kernel = rng.normal(size=(D, E)).astype(np.float32)
  logits = {by: rng.normal(size=(3, V)) for by in ("model", "teacher")}
  return sequences, kernel, logits


def _run(table, case, objective, kernel=None):
  sequences, own, logits = case
  kernel = own if kernel is None else kernel
  results = {}
  for by, sequence in sequences.items():
    end = () if by == "model" else (by,)
    results["encode", "image", "clean", *end] = sequence
    results["pool", "image", "clean", *end] = sequence.x[:, 1]
    results["head", "label", "clean", *end] = lambda x, by=by: jnp.asarray(
      logits[by], jnp.float32
    )
  results["head", "distillation", "clean"] = lambda x: x @ kernel
  batch = {"example_mask": jnp.asarray([True, True, False])}
  return objective(table(results), batch, rng=KEY, train=True)


def _features(case, what):
  sequences, kernel, _ = case
  for i in range(2):
    for j in range(4 if what == "tokens" else 1):
      if what == "tokens" and not sequences["model"].mask[i, 1 + j]:
        continue
      own, target = (
        np.asarray(sequences[by].x[i, 1 + j], np.float64)
        for by in ("model", "teacher")
      )
      yield own @ kernel, target


@pytest.mark.parametrize("what, count", [("tokens", 7), ("pooled", 2)])
def test_features_are_compared_by_their_direction(case, table, what, count):
  loss, _ = _run(table, case, Distillation(what=what))
  total = 0.0
  for made, target in _features(case, what):
    length = np.sqrt(made @ made + 0.01 * E)  # Softened, as documented.
    total += 1 - made @ target / length / np.linalg.norm(target)
  np.testing.assert_allclose(loss.total, total, rtol=1e-5)
  assert loss.weight == count


def test_features_are_compared_by_their_values(case, table):
  loss, _ = _run(table, case, Distillation(loss="mse"))
  total = 0.0
  for made, target in _features(case, "tokens"):
    target = (target - target.mean()) / np.sqrt(target.var() + 1e-6)
    total += np.mean((made - target) ** 2)
  np.testing.assert_allclose(loss.total, total, rtol=1e-5)


def _softmax(x):
  exp = np.exp(x - x.max())
  return exp / exp.sum()


def test_logits_are_compared_by_softened_divergence(case, table):
  objective = Distillation(what="logits", num_classes=V, temperature=2.0)
  loss, metrics = _run(table, case, objective)
  _, _, logits = case
  total, agree = 0.0, 0
  for i in range(2):
    p, q = (_softmax(logits[by][i] / 2.0) for by in ("teacher", "model"))
    total += 4.0 * np.sum(p * np.log(p / q))
    agree += int(np.argmax(p) == np.argmax(q))
  np.testing.assert_allclose(loss.total, total, rtol=1e-5)
  assert (metrics["agreement"].total, metrics["agreement"].weight) == (agree, 2)


@pytest.mark.parametrize("loss", ["cosine", "mse"])
def test_chance_is_the_loss_of_a_head_of_zeros(case, table, loss):
  objective = Distillation(loss=loss)
  zeros = np.zeros((D, E), np.float32)
  term, _ = _run(table, case, objective, zeros)
  np.testing.assert_allclose(objective.chance(INFO, 3), term.mean, rtol=1e-4)

  def start(kernel):
    return _run(table, case, objective, kernel)[0].mean

  gradient = jax.grad(start)(jnp.asarray(zeros))
  assert 0 < np.linalg.norm(gradient) < 10


def test_heads_have_the_size_of_what_is_learned():
  assert isinstance(Distillation(), Objective)
  assert Distillation().heads(INFO) == {
    "distillation": {"name": "linear", "num_classes": E}
  }
  assert Distillation().teacher_heads(INFO) == {}
  logits = Distillation(what="logits", num_classes=V)
  head = {"label": {"name": "linear", "num_classes": V}}
  assert logits.heads(INFO) == logits.teacher_heads(INFO) == head
  with pytest.raises(errors.UserError, match=r"no encoder of 'audio'.*'image'"):
    Distillation(modality="audio").heads(INFO)


@pytest.mark.parametrize(
  "fields, message",
  [
    (dict(what="token"), "mean 'tokens'"),
    (dict(loss="cosines"), "mean 'cosine'"),
    (dict(temperature=0.0), "temperature=0.0"),
    (dict(what="logits"), "num_classes"),
  ],
)
def test_wrong_settings_are_refused_at_once(fields, message):
  with pytest.raises(errors.UserError, match=message):
    Distillation(**fields)
