import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core import errors
from mmjax.core.interfaces import ModelInfo, Objective
from mmjax.objectives.contrastive import Contrastive

INFO = ModelInfo(embed_dim=4)
KEY = jax.random.key(0)
SCALE = 8.0


@pytest.fixture
def rows(rng):
  x = rng.normal(size=(2, 5, 4))
  x /= np.linalg.norm(x, axis=-1, keepdims=True)
  return jnp.asarray(x, jnp.float32)


def _results(a, b, views=("clean", "clean")):
  return {
    ("project", "image", views[0]): a,
    ("project", "text", views[1]): b,
    ("temperature", "clean"): {"scale": jnp.float32(SCALE)},
  }


@pytest.mark.parametrize("filler", [False, True])
def test_the_loss_is_info_nce_of_the_examples_that_count(
  rows, table, by_hand, filler
):
  mask = np.asarray([True, True, not filler, True, not filler])
  batch = {"example_mask": jnp.asarray(mask)} if filler else {}
  loss, metrics = Contrastive()(
    table(_results(*rows)), batch, rng=KEY, train=True
  )
  np.testing.assert_allclose(
    loss.total, by_hand.info_nce(*rows, SCALE, mask), rtol=1e-5
  )
  assert loss.weight == mask.sum()
  a, b = np.asarray(rows, np.float64)[:, mask]
  right = sum(int(np.argmax([a[i] @ c for c in b]) == i) for i in range(len(a)))
  assert metrics["accuracy"].total == right
  assert metrics["accuracy"].weight == mask.sum()
  assert metrics["scale"].mean == SCALE


def test_filler_is_never_the_best_match(table):
  a = jnp.asarray([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
  b = jnp.asarray([[0.5, 0.0], [0.0, 0.5], [9.0, 9.0]])
  batch = {"example_mask": jnp.asarray([True, True, False])}
  _, metrics = Contrastive()(table(_results(a, b)), batch, rng=KEY, train=True)
  accuracy = metrics["accuracy"]
  assert (accuracy.total, accuracy.weight) == (2, 2)


def test_more_modalities_give_the_mean_over_the_pairs_that_are_there(
  rng, table, by_hand
):
  names = ("audio", "image", "text")
  x = rng.normal(size=(3, 4, 5))
  x = jnp.asarray(x / np.linalg.norm(x, axis=-1, keepdims=True), jnp.float32)
  results = {("project", n, "clean"): x[i] for i, n in enumerate(names)}
  results["temperature", "clean"] = {"scale": jnp.float32(SCALE)}
  has = {"audio": [1, 0, 0, 1], "image": [1, 1, 1, 1], "text": [1, 1, 0, 1]}
  has = {n: np.asarray(v, bool) for n, v in has.items()}
  batch = {f"{n}_present": jnp.asarray(v) for n, v in has.items()}

  loss, metrics = Contrastive(modalities=names)(
    table(results), batch, rng=KEY, train=True
  )

  pairs = [(0, 1), (0, 2), (1, 2)]
  masks = [has[names[i]] & has[names[j]] for i, j in pairs]
  total = sum(
    by_hand.info_nce(x[i], x[j], SCALE, mask)
    for (i, j), mask in zip(pairs, masks, strict=True)
  )
  np.testing.assert_allclose(loss.total, total, rtol=1e-5)
  assert loss.weight == 2 + 2 + 3
  assert metrics["accuracy/audio_text"].weight == 2


def test_what_stands_for_an_absent_modality_changes_nothing(rows, table):
  batch = {"text_present": jnp.asarray([True, True, False, True, True])}

  def loss(a, b):
    apply = table(_results(a, b))
    return Contrastive()(apply, batch, rng=KEY, train=True)[0].mean

  value, grads = jax.value_and_grad(loss, argnums=(0, 1))(*rows)
  junk = rows[1].at[2].set(jnp.nan)
  got, got_grads = jax.value_and_grad(loss, argnums=(0, 1))(rows[0], junk)
  assert got == value
  np.testing.assert_array_equal(got_grads, grads)
  np.testing.assert_array_equal(grads[1][2], 0)


def test_the_sigmoid_loss_judges_each_pair(rows, table):
  bias = -3.0
  mask = np.asarray([1, 1, 0, 1, 1], bool)
  results = _results(*rows)
  results["temperature", "clean"]["bias"] = jnp.float32(bias)
  loss, metrics = Contrastive(loss="sigmoid")(
    table(results), {"text_present": jnp.asarray(mask)}, rng=KEY, train=True
  )
  a, b = np.asarray(rows, np.float64)[:, mask]
  z = SCALE * a @ b.T + bias
  wrong = np.where(np.eye(4, dtype=bool), -z, z)
  np.testing.assert_allclose(
    loss.total, np.log1p(np.exp(wrong)).sum(), rtol=1e-5
  )
  assert loss.weight == 4
  assert metrics["bias"].mean == bias


def test_chance_of_the_sigmoid_loss_is_that_of_cosines_of_zero(table):
  objective = Contrastive(loss="sigmoid")
  space = objective.shared_space
  results = _results(jnp.eye(10)[:5], jnp.eye(10)[5:])
  results["temperature", "clean"] = {
    "scale": jnp.float32(space["init_scale"]),
    "bias": jnp.float32(space["init_bias"]),
  }
  loss, _ = objective(table(results), {}, rng=KEY, train=True)
  np.testing.assert_allclose(objective.chance(INFO, 5), loss.mean, rtol=1e-6)
  assert Contrastive().shared_space == {}


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    (dict(loss="sigmod"), "Did you mean 'sigmoid'"),
    (dict(chunk=-1), "expected 0 or more"),
    (dict(modalities=("image",)), "expected at least two"),
    (dict(views=("masked",)), "expected one for each of"),
  ],
)
def test_fields_that_do_not_fit_are_refused(fields, message):
  with pytest.raises(errors.UserError, match=message):
    Contrastive(**fields)


def test_each_side_has_a_view_of_its_own(rows, table):
  views = ("masked", "clean")
  apply = table(_results(*rows, views))
  Contrastive(views=views)(apply, {}, rng=KEY, train=True)
  assert apply.calls[:2] == [
    ("project", "image", "masked"),
    ("project", "text", "clean"),
  ]


def test_two_looks_at_one_modality_are_a_pair(rows, table, by_hand):
  a, b = rows
  views = ("clean", "second")
  objective = Contrastive(modalities=("image", "image"), views=views)
  results = {
    ("project", "image", "clean"): a,
    ("project", "image", "second"): b,
    ("temperature", "clean"): {"scale": jnp.float32(SCALE)},
  }
  loss, _ = objective(table(results), {}, rng=KEY, train=True)
  expected = by_hand.info_nce(a, b, SCALE, np.ones(5, bool))
  np.testing.assert_allclose(loss.total, expected, rtol=1e-5)
  assert set(objective.fields(INFO)) == {"image", "image_second"}


@pytest.mark.parametrize("loss", ["info_nce", "sigmoid"])
def test_a_chunk_is_as_large_as_asked_for(rows, table, loss):
  results = _results(*rows)
  results["temperature", "clean"]["bias"] = jnp.float32(0.0)

  def run(chunk):
    objective = Contrastive(loss=loss, chunk=chunk)
    return objective(table(results), {}, rng=KEY, train=True)

  text = str(jax.make_jaxpr(run, static_argnums=0)(2))
  assert "[2,5]" in text and "[5,5]" not in text


def test_chance_is_the_loss_of_equal_projections(table):
  ones = jnp.full((5, 4), 0.5)
  loss, _ = Contrastive()(table(_results(ones, ones)), {}, rng=KEY, train=True)
  np.testing.assert_allclose(
    Contrastive().chance(INFO, 5), loss.mean, rtol=1e-6
  )


@pytest.mark.parametrize(
  ("negatives", "coupled"), [("global", True), ("micro_batch", False)]
)
def test_it_says_whether_examples_are_coupled(negatives, coupled):
  assert Contrastive(negatives=negatives).couples_examples is coupled


def test_it_declares_its_fields_and_no_head():
  assert isinstance(Contrastive(), Objective)
  fields = Contrastive().fields(INFO)
  assert {name: spec.dtype for name, spec in fields.items()} == {
    "image": "uint8",
    "text": "int32",
  }
  assert Contrastive().heads(INFO) == {}


def test_an_unknown_kind_of_negatives_is_refused_with_the_nearest_name():
  with pytest.raises(errors.UserError, match="Did you mean 'global'"):
    Contrastive(negatives="globl")
