import numpy as np
import pytest

from mmjax.core import errors
from mmjax.evaluators.zero_shot import ZeroShot

NAMES = ("ab", "ba", "cc")
TABLE = np.random.default_rng(3).normal(size=(31, 4)).astype(np.float32)


class Tokenizer:
  """Letters to ids 5 and up; no bos, no eos."""

  pad_id = 0

  def num_tokens(self, text):
    return len(text)

  def encode(self, text, max_tokens):
    ids = [ord(letter) - 92 for letter in text]  # "a" is 5.
    return np.array(ids + [0] * (max_tokens - len(ids)), np.int32)


def embed(ids):
  """A vector of length 1 that depends on every id and its place."""
  places = 1 + np.arange(ids.shape[1])
  x = (TABLE[ids] * places[None, :, None]).sum(axis=1)
  return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.fixture
def make(fake, rng):
  pictures = rng.normal(size=(7, 4)).astype(np.float32)
  labels = np.array([0, 1, 2, 0, 1, 1, 2], np.int32)
  columns = {
    "image": pictures,
    "text": np.zeros((7, 6), np.int32),
    "label": labels,
  }
  predict = fake.predict_with(
    project=lambda batch, modality, view: (
      batch["image"]
      if modality == "image"
      else embed(np.asarray(batch["text"]))
    )
  )

  def made(**options):
    return ZeroShot(
      batches=fake.batched(columns, 3),
      tokenizer=Tokenizer(),
      class_names=NAMES,
      top_k=(1, 2),
      **options,
    )

  return made, predict, pictures, labels


def test_accuracy_is_that_of_averaged_texts(make):
  made, predict, pictures, labels = make
  templates = ("{}", "d{}", "{}ef")
  got = dict(made(templates=templates).run(predict, {}))

  encode = Tokenizer().encode
  classes = []
  for name in NAMES:
    texts = [t.format(name) for t in templates]
    each = embed(np.stack([encode(text, 6) for text in texts]))
    mean = each.mean(axis=0)
    classes.append(mean / np.linalg.norm(mean))
  order = np.argsort(-pictures @ np.stack(classes).T, axis=1)
  for k in (1, 2):
    hits = [label in row[:k] for label, row in zip(labels, order, strict=True)]
    assert got[f"top{k}"] == pytest.approx(np.mean(hits))
  assert got["majority"] == pytest.approx(3 / 7)
  (artifact,) = made(templates=templates).pictures(predict, {})
  assert np.trace(artifact.data["values"]) == round(7 * got["top1"])


def test_names_may_be_said_otherwise(make):
  made, predict, pictures, labels = make
  got = dict(made(names=("a", "b", "c")).run(predict, {}))
  encode = Tokenizer().encode
  classes = embed(np.stack([encode(name, 6) for name in "abc"]))
  expected = np.mean((pictures @ classes.T).argmax(axis=1) == labels)
  assert got["top1"] == pytest.approx(expected)


def test_a_template_without_a_place_is_refused(make):
  with pytest.raises(errors.UserError, match="goes"):
    make[0](templates=("a picture",))


def test_names_have_to_be_as_many_as_the_classes(make):
  with pytest.raises(errors.UserError, match="2 names.*3 classes"):
    make[0](names=("a", "b"))


def test_a_text_that_does_not_fit_is_refused(make):
  made, predict, _, _ = make
  with pytest.raises(errors.UserError, match="'abcdeab'.*7 tokens.*holds 6"):
    list(made(templates=("abcde{}",)).run(predict, {}))
