from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.evaluators import masked_prediction
from mmjax.evaluators.masked_prediction import MaskedPrediction

# One example of 4 patches (2 x 2 pixels each) and 3 words, and one filler.
CODES = np.array([[3, 1, 2, 0], [3, 3, 3, 3], [2, 2, 1, 1]], np.int32)
GUESS = np.array([[1, 0], [3, 3], [0, 1]], np.int32)  # At patches 1 and 3.
WORD_GUESS = np.array([[7, 9], [6, 6], [5, 0]], np.int32)


@pytest.fixture
def made(fake, letters):
  text = np.array([[1, 5, 7, 2], [1, 6, 6, 2], [1, 8, 5, 2]], np.int32)
  columns = {
    "image": np.full((3, 4, 4, 3), 200, np.uint8),
    "image_hidden": np.tile(np.array([[1, 3]], np.int32), (3, 1)),
    "text": text,
    "text_hidden": np.array([[2, 0], [1, 2], [2, 0]], np.int32),
    "text_hidden_mask": np.array([[True, False], [True, True], [True, False]]),
    "codes": CODES,
    "guess": GUESS,
    "words": WORD_GUESS,
  }

  def head(batch, name, taken, view):
    field, size = {"vtp": ("guess", 4), "mlm": ("words", 31)}[name]
    return jnp.eye(size)[batch[field]]

  predict = fake.predict_with(
    fuse=lambda batch, names, view: {
      n: SimpleNamespace(take=lambda indices: None) for n in names
    },
    head=head,
    codes=lambda batch, name, view: batch["codes"],
    # A code's picture: all pixels have its mean as brightness.
    decode_codes=lambda batch, codes, view: jnp.broadcast_to(
      codes.mean(axis=1)[:, None, None, None] / 10.0, (len(codes), 4, 4, 3)
    ),
  )
  return MaskedPrediction(
    batches=fake.batched(columns, 2), tokenizer=letters
  ), predict


def test_accuracies_count_hidden_places_of_real_examples(made):
  evaluator, predict = made
  got = dict(evaluator.run(predict, {}))
  # Codes at patches 1 and 3: (1, 0), (3, 3), (2, 1); the third: one right.
  assert got["codes/accuracy"] == pytest.approx(5 / 6)
  assert got["codes/majority"] == pytest.approx(2 / 6)
  # Hidden words 7; 6, 6; 5: all predicted.
  assert got["tokens/accuracy"] == pytest.approx(1.0)
  assert got["tokens/majority"] == pytest.approx(2 / 4)


def test_hidden_patches_are_gray_and_others_untouched(rng):
  images = rng.integers(0, 100, (1, 4, 4, 3), dtype=np.uint8)
  got = masked_prediction.cover(images, np.array([[1, 2]]), 4)
  expected = images.copy()
  expected[0, :2, 2:] = 128  # Patch 1: top right.
  expected[0, 2:, :2] = 128  # Patch 2: bottom left.
  np.testing.assert_array_equal(got, expected)


def test_predicted_codes_take_the_place_of_hidden_ones(made):
  evaluator, predict = made
  patches, _ = evaluator.pictures(predict, {})
  images = patches.data["images"]  # Rows of original, hidden, predicted, true.
  assert patches.data["columns"][2] == "predicted codes"
  # Example 0: codes 3 1 2 0 are guessed right; their mean is 1.5.
  np.testing.assert_array_equal(images[0, 2], np.uint8(0.15 * 255 + 0.5))
  np.testing.assert_array_equal(images[0, 3], np.uint8(0.15 * 255 + 0.5))
  assert patches.data["captions"] == ["ac", "da"]


def test_words_say_what_was_hidden_and_predicted(made):
  evaluator, predict = made
  _, words = evaluator.pictures(predict, {})
  assert words.data["rows"][0] == [
    {"token": "a", "hidden": False, "predicted": "", "right": False},
    {"token": "c", "hidden": True, "predicted": "c", "right": True},
  ]
