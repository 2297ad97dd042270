import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core import errors
from mmjax.core.interfaces import ModelInfo, Objective
from mmjax.core.sequence import Sequence
from mmjax.objectives.matching import Matching

INFO = ModelInfo(embed_dim=4)
SIZE, DIM = 6, 4


class Fusion:
  """A model whose head tells, pair by pair, what was put together.

  Each example's tokens hold its number, those of texts a thousand times as
  much. Remembers what it was asked for.
  """

  def __init__(self, numbers=None, project=None):
    numbers = np.arange(1, SIZE + 1) if numbers is None else numbers
    self.numbers = jnp.asarray(numbers, jnp.float32)
    self.project = project or dict.fromkeys(("image", "text"), jnp.eye(SIZE))
    self.asked, self.judged = [], []
    self.slope = 1e-4  # Of the head.

  def __call__(self, method, *args, view="clean"):
    self.asked.append((method, *(a for a in args if isinstance(a, str)), view))
    return getattr(self, f"_{method}")(*args)

  def _encode(self, modality):
    tokens = self.numbers[:, None] * (1000.0 if modality == "text" else 1.0)
    x = jnp.stack([tokens, jnp.full_like(tokens, jnp.nan)], 1)  # b 2 1
    x = jnp.broadcast_to(x, (SIZE, 2, DIM))
    mask = jnp.broadcast_to(jnp.asarray([[True, False]]), (SIZE, 2))
    # The grid is the same in all examples.
    return Sequence(x, mask, coordinates=jnp.zeros((1, 2, 1)))

  def _fuse(self, modalities):
    return {m: self._encode(m) for m in modalities}

  def _fuse_pairs(self, name, sequences, train):
    assert train is True
    return sequences

  def _project(self, modality):
    return self.project[modality]

  def _temperature(self):
    return {"scale": jnp.float32(3.0)}

  def _head(self, name, x):
    self.judged.append(x)
    return jnp.stack([jnp.zeros(len(x)), self.slope * x[:, 0]], axis=1)


@pytest.fixture
def batch(rng):
  return {
    "image": jnp.asarray(rng.integers(0, 255, (SIZE, 2, 2, 3)), jnp.uint8),
    "text": jnp.asarray(rng.integers(0, 99, (SIZE, 5)), jnp.int32),
  }


def run(objective, model, batch, seed=0):
  """Loss, metrics; the other text of each image, the other image of each."""
  loss, metrics = objective(model, batch, rng=jax.random.key(seed), train=True)
  # The mean of both modalities, of the one token that counts.
  sums = [np.rint(2 * np.asarray(x[:, 0])) for x in model.judged]
  (images, texts), (own, text), (image, same) = (
    (x % 1000, x // 1000) for x in sums
  )
  for x in (images, texts, own, same):  # Zero where nothing counts.
    assert np.all((x == np.asarray(model.numbers)) | (x == 0))
  return loss, metrics, text, image


@pytest.mark.parametrize("negatives", ["hard", "random"])
def test_each_example_is_judged_alone_and_with_two_others(batch, negatives):
  model = Fusion()
  loss, metrics, text, image = run(Matching(negatives=negatives), model, batch)

  number = np.arange(1, SIZE + 1)
  for drawn in (text, image):
    assert set(drawn) <= set(number)
    assert np.all(drawn != number)
  # By hand: logits (0, slope * pooled), label 1 for the first, 0 for others.
  total, right = 0.0, 0
  decisions = (1, number, number), (0, number, text), (0, image, number)
  for label, images, texts in decisions:
    for i in range(SIZE):
      z = 1e-4 * (images[i] + 1000 * texts[i]) / 2
      total += np.log1p(np.exp(-z if label else z))
      right += label  # z is positive: judged to belong.
  np.testing.assert_allclose(loss.total, total, rtol=1e-5)
  assert loss.weight == metrics["accuracy"].weight == 3 * SIZE
  assert metrics["accuracy"].total == right


def test_hard_negatives_are_the_similar_ones(batch):
  # Each picture is like the text before it.
  project = {
    "image": 100.0 * jnp.eye(SIZE),
    "text": jnp.roll(jnp.eye(SIZE), -1, axis=0),
  }
  _, _, text, image = run(Matching(), Fusion(project=project), batch)
  np.testing.assert_array_equal(text, [6, 1, 2, 3, 4, 5])
  np.testing.assert_array_equal(image, [2, 3, 4, 5, 6, 1])


def test_random_negatives_ask_for_no_similarity_and_differ_by_key(batch):
  objective = Matching(negatives="random", view="masked")
  model = Fusion()
  drawn = [run(objective, Fusion(), batch, seed)[2] for seed in range(3)]
  assert any(np.any(drawn[0] != other) for other in drawn[1:])
  run(objective, model, batch)
  assert {call[0] for call in model.asked} == {
    "encode",
    "fuse",
    "fuse_pairs",
    "head",
  }
  views = {c[-1] for c in model.asked if c[0] in ("encode", "fuse")}
  assert views == {"masked"}


@pytest.mark.parametrize("negatives", ["hard", "random"])
def test_examples_that_lack_a_side_are_neither_counted_nor_drawn(
  batch, negatives
):
  batch |= {
    "text_present": jnp.asarray([1, 1, 0, 1, 1, 1], bool),
    "example_mask": jnp.asarray([1, 1, 1, 1, 1, 0], bool),
  }
  counts = np.asarray([1, 1, 0, 1, 1, 0], bool)

  def loss(numbers, slope):
    model = Fusion(numbers)
    model.slope = slope
    out, _ = Matching(negatives=negatives)(
      model, batch, rng=jax.random.key(0), train=True
    )
    return out.mean, out.weight

  numbers = jnp.arange(1.0, SIZE + 1)
  grad_of = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
  (value, weight), (grad, by_slope) = grad_of(numbers, 1e-4)
  assert weight == 3 * 4
  assert np.all(np.asarray(grad)[~counts] == 0)
  junk = jnp.where(counts, numbers, jnp.nan)
  (got, _), (junk_grad, junk_by_slope) = grad_of(junk, 1e-4)
  assert (got, junk_by_slope) == (value, by_slope)
  np.testing.assert_array_equal(junk_grad[counts], grad[counts])

  batch["example_mask"] = jnp.zeros(SIZE, bool)
  (value, weight), (grad, by_slope) = grad_of(numbers, 1e-4)
  assert value == weight == by_slope == 0
  np.testing.assert_array_equal(grad, 0.0)


def test_where_all_texts_are_the_same_there_are_no_negatives(batch):
  batch["text"] = jnp.ones((SIZE, 5), jnp.int32)
  loss, *_ = run(Matching(negatives="random"), Fusion(), batch)
  assert loss.weight == SIZE
  pooled = 1001 * np.arange(1, SIZE + 1) / 2
  expected = np.log1p(np.exp(-1e-4 * pooled)).sum()
  np.testing.assert_allclose(loss.total, expected, rtol=1e-5)


def test_what_equals_an_example_on_one_side_is_no_negative(batch):
  text = jnp.asarray(
    [[1, 2, 3], [1, 2, 9], [4, 5, 6], [4, 5, 6]] + 2 * [[7] * 3]
  )
  # The padding may differ.
  mask = jnp.asarray([[1, 1, 0]] * 2 + [[1, 1, 1]] * 4, bool)
  image = batch["image"].at[5].set(batch["image"][0])
  batch = {"text": text.astype(jnp.int32), "text_mask": mask, "image": image}
  same = [{1, 2, 6}, {1, 2}, {3, 4}, {3, 4}, {5, 6}, {5, 6, 1}]
  seen = [set() for _ in range(SIZE)]
  for seed in range(10):
    *_, text, image = run(Matching(negatives="random"), Fusion(), batch, seed)
    for i in range(SIZE):
      seen[i] |= {int(text[i]), int(image[i])}
  for i in range(SIZE):
    assert not seen[i] & same[i]
  assert len(set.union(*seen)) == SIZE


def test_the_order_of_the_batch_changes_nothing(batch, rng):
  batch |= {"example_mask": jnp.asarray([1, 1, 1, 1, 1, 0], bool)}
  project = {
    m: jnp.asarray(rng.normal(size=(SIZE, 3)), jnp.float32)
    for m in ("image", "text")
  }
  _, _, text, image = run(Matching(), Fusion(project=project), batch)
  order = np.asarray([3, 1, 5, 0, 4, 2])
  moved = {name: x[order] for name, x in batch.items()}
  project = {m: x[order] for m, x in project.items()}
  model = Fusion(np.arange(1, SIZE + 1)[order], project)
  _, _, got_text, got_image = run(Matching(), model, moved)
  real = np.asarray(moved["example_mask"])
  np.testing.assert_array_equal(got_text[real], text[order][real])
  np.testing.assert_array_equal(got_image[real], image[order][real])


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    (dict(negatives="hardest"), "Did you mean 'hard'"),
    (dict(candidates="globl"), "Did you mean 'global'"),
    (dict(modalities=("image", "image")), "expected two different ones"),
    (dict(modalities=("image",)), "expected two different ones"),
    (dict(chunk=-1), "expected 0 or more"),
  ],
)
def test_fields_that_do_not_fit_are_refused(fields, message):
  with pytest.raises(errors.UserError, match=message):
    Matching(**fields)


def test_it_declares_fields_a_head_and_chance():
  objective = Matching()
  assert isinstance(objective, Objective)
  assert set(objective.fields(INFO)) == {"image", "text"}
  assert objective.heads(INFO) == {
    "matching": {"name": "linear", "num_classes": 2}
  }
  assert objective.chance(INFO, 8) == pytest.approx(np.log(2))
  assert objective.couples_examples
  assert not Matching(candidates="micro_batch").couples_examples


def test_the_class_token_of_a_fusion_is_what_is_judged(batch):
  class WithClass(Fusion):
    """Its class token holds the number of the picture, negative."""

    def _fuse(self, modalities):
      sequences = {m: self._encode(m) for m in modalities}
      return self._fuse_pairs("", sequences, True)

    def _fuse_pairs(self, name, sequences, train):
      token = -sequences["image"].x[:, :1]
      cls = Sequence(token, jnp.ones(token.shape[:2], bool))
      return {"cls": cls, **sequences}

  model = WithClass()
  Matching()(model, batch, rng=jax.random.key(0), train=True)
  own, other_text, other_image = (np.asarray(x[:, 0]) for x in model.judged)
  np.testing.assert_array_equal(own, -np.arange(1.0, SIZE + 1))
  np.testing.assert_array_equal(other_text, own)
  assert np.all(other_image != own) and np.all(other_image < 0)
  head = Matching(head_tanh=True).heads(INFO)["matching"]
  assert head == {"name": "linear", "num_classes": 2, "tanh": True}
