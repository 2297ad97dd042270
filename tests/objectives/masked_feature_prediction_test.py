import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core import errors
from mmjax.core.interfaces import ModelInfo, Objective
from mmjax.core.sequence import Sequence
from mmjax.objectives.masked_feature_prediction import MaskedFeaturePrediction

D, E = 4, 6
INFO = ModelInfo(
  embed_dim=D,
  widths={"image": D},
  teacher=ModelInfo(embed_dim=E, widths={"image": E}),
)
KEY = jax.random.key(0)
MFP = MaskedFeaturePrediction


@pytest.fixture
def case(rng):
  """A batch, what the student and the teacher encode, and the head."""
  batch = {
    "image_hidden": jnp.asarray([[1, 3], [2, 0], [0, 1]], jnp.int32),
    "image_present": jnp.asarray([True, True, False]),
  }
  student, teacher = (
    Sequence(
      jnp.asarray(rng.normal(size=(3, 1 + 4, d)), jnp.float32),
      jnp.ones((3, 5), bool),
      num_prefix=1,
      num_content=4,
    )
    for d in (D, E)
  )
  return batch, student, teacher, rng.normal(size=(D, E)).astype(np.float32)


def _run(table, case, objective):
  batch, student, teacher, kernel = case
  apply = table(
    {
      ("encode", "image", "masked"): student,
      ("encode", "image", "clean", objective.by): teacher,
      ("head", "features", "clean"): lambda x: x @ kernel,
    }
  )
  return objective(apply, batch, rng=KEY, train=True)


def _pairs(case):
  """What is predicted of each hidden token that counts, and its target."""
  batch, student, teacher, kernel = case
  for i in range(2):
    for j in np.asarray(batch["image_hidden"][i]):
      target = np.asarray(teacher.x[i, 1 + j], np.float64)
      target = (target - target.mean()) / np.sqrt(target.var() + 1e-6)
      yield np.asarray(student.x[i, 1 + j], np.float64) @ kernel, target


def _smooth(distance, beta):
  if distance < beta:
    return distance**2 / (2 * beta)
  return distance - beta / 2


@pytest.mark.parametrize("by", ["ema", "teacher"])
def test_the_loss_is_that_of_normalised_features(case, table, by):
  loss, metrics = _run(table, case, MFP(by=by))
  pairs = list(_pairs(case))
  total = sum(np.mean((made - target) ** 2) for made, target in pairs)
  np.testing.assert_allclose(loss.total, total, rtol=1e-5)
  assert loss.weight == 4
  spread = np.var([target for _, target in pairs], axis=0).mean()
  np.testing.assert_allclose(metrics["target_variance"].mean, spread, rtol=1e-5)


def test_smooth_l1_is_a_square_near_zero_and_a_line_beyond(case, table):
  loss, _ = _run(table, case, MFP(loss="smooth_l1", beta=0.7))
  total = sum(
    np.mean([_smooth(abs(d), 0.7) for d in made - target])
    for made, target in _pairs(case)
  )
  np.testing.assert_allclose(loss.total, total, rtol=1e-5)


def test_the_variance_of_targets_that_are_all_alike_is_zero(case, table):
  batch, student, teacher, kernel = case
  alike = teacher.replace(x=jnp.broadcast_to(teacher.x[:1, :1], (3, 5, E)))
  _, metrics = _run(table, (batch, student, alike, kernel), MFP())
  assert metrics["target_variance"].mean < 1e-10


def test_chance_is_the_loss_of_a_head_of_zeros(case, table):
  batch, student, teacher, kernel = case
  loss, _ = _run(table, (batch, student, teacher, 0 * kernel), MFP())
  np.testing.assert_allclose(MFP().chance(INFO, 3), loss.mean, rtol=1e-4)
  assert MFP(loss="smooth_l1").chance(INFO, 3) is None


def test_a_teacher_of_another_grid_is_refused(case, table):
  batch, student, teacher, kernel = case
  shorter = Sequence(
    teacher.x[:, :4], teacher.mask[:, :4], num_prefix=1, num_content=3
  )
  with pytest.raises(errors.UserError, match="teacher has 3 .* encoder 4"):
    _run(table, (batch, student, shorter, kernel), MFP())


def test_it_declares_what_it_needs():
  assert isinstance(MFP(), Objective)
  assert (MFP().needs_ema, MFP().needs_teacher) == (True, False)
  frozen = MFP(by="teacher")
  assert (frozen.needs_ema, frozen.needs_teacher) == (False, True)
  widths = [o.heads(INFO)["features"]["num_classes"] for o in (MFP(), frozen)]
  assert widths == [D, E]
  with pytest.raises(errors.UserError, match=r"encoder of 'audio'.*'image'"):
    MFP(modality="audio").heads(INFO)


@pytest.mark.parametrize(
  "fields, message",
  [
    (dict(by="emu"), "mean 'ema'"),
    (dict(loss="l1"), "loss of features 'l1'"),
    (dict(beta=0.0), "beta=0.0"),
  ],
)
def test_wrong_settings_are_refused_at_once(fields, message):
  with pytest.raises(errors.UserError, match=message):
    MFP(**fields)
