import numpy as np
import pytest

from mmjax.evaluators.retrieval import Retrieval

# Two pictures share the text "a".
TEXT = np.array([[5], [6], [5], [7]], np.int32)
PICTURES = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [-1.0, 0.0]])
TEXTS = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.8, -0.6]])


@pytest.fixture
def made(fake, letters):
  columns = {
    "text": TEXT,
    "image": np.arange(4 * 12, dtype=np.uint8).reshape(4, 2, 2, 3),
    "picture": PICTURES.astype(np.float32),
    "words": TEXTS.astype(np.float32),
  }
  predict = fake.predict_with(
    project=lambda batch, modality, view: batch[
      {"image": "picture", "text": "words"}[modality]
    ]
  )
  evaluator = Retrieval(
    batches=fake.batched(columns, 3),
    tokenizer=letters,
    at=(1, 2),
    num_shown=2,
    num_results=3,
  )
  return evaluator, predict


def test_recalls_by_hand(made):
  evaluator, predict = made
  got = dict(evaluator.run(predict, {}))
  # Candidates: the texts a (1, 0), b (0, 1), c (.8, -.6).
  # Picture 0: a 1, c .8, b 0 -> a first. Picture 1: b first.
  # Picture 2: a .6, b .8, c 0 -> a second. Picture 3: c second.
  assert got["image_to_text/R@1"] == pytest.approx(2 / 4)
  assert got["image_to_text/R@2"] == pytest.approx(1.0)
  # Text a: picture 0. Text b: picture 1. Text c: pictures 0, 2, 1, then 3.
  assert got["text_to_image/R@1"] == pytest.approx(2 / 3)
  assert got["text_to_image/R@2"] == pytest.approx(2 / 3)
  assert got["text_to_image/median_rank"] == 1
  assert got["chance_R@2"] == pytest.approx(2 / 3)


def test_gallery_marks_all_pictures_of_the_text(made):
  evaluator, predict = made
  (artifact,) = evaluator.pictures(predict, {})
  first, last = artifact.data["rows"]
  assert first["query"] == "a"
  assert [r["right"] for r in first["results"]] == [True, True, False]
  assert [r["caption"] for r in first["results"]] == ["a", "a", "b"]
  assert last["query"] == "c"
  assert [r["right"] for r in last["results"]] == [False, False, False]
  np.testing.assert_allclose(
    [r["score"] for r in last["results"]], [0.8, 0.0, -0.6], atol=1e-6
  )


@pytest.mark.parametrize(
  ("modality", "field", "shown"),
  [
    ("video", np.arange(96, dtype=np.uint8).reshape(4, 2, 2, 2, 3), True),
    ("audio", np.zeros((4, 9), np.float32), False),
    ("image", np.zeros((4, 3, 12), np.uint8), False),  # Bags of patches.
  ],
)
def test_what_has_no_pictures_shows_none(fake, letters, modality, field, shown):
  columns = {
    "text": TEXT,
    modality: field,
    "picture": PICTURES.astype(np.float32),
    "words": TEXTS.astype(np.float32),
  }
  predict = fake.predict_with(
    project=lambda batch, name, view: batch[
      {modality: "picture", "text": "words"}[name]
    ]
  )
  evaluator = Retrieval(
    batches=fake.batched(columns, 3),
    tokenizer=letters,
    modality=modality,
    num_shown=1,
    num_results=1,
  )
  artifacts = list(evaluator.pictures(predict, {}))
  assert len(artifacts) == shown
  if shown:  # The frame in the middle, of the text's best picture.
    best = artifacts[0].data["rows"][0]["results"][0]["image"]
    np.testing.assert_array_equal(best, field[0, 1])


def test_any_text_of_a_picture_is_right(fake, letters):
  # Pictures p (twice, two texts), q (once) and r (twice).
  columns = {
    "text": np.array([[5], [6], [7], [8], [9]], np.int32),
    "image": np.arange(5 * 12, dtype=np.uint8).reshape(5, 2, 2, 3),
    "picture": np.array(
      [[1, 0], [0, 1], [1, 0], [0.6, 0.8], [0.6, 0.8]], np.float32
    ),
    "words": np.array(
      [[0.6, 0.8], [0, 1], [-1, 0], [0.8, 0.6], [0, -1]], np.float32
    ),
    "id": np.array(list("pqprr"), object),
  }
  predict = fake.predict_with(
    project=lambda batch, modality, view: batch[
      {"image": "picture", "text": "words"}[modality]
    ]
  )
  evaluator = Retrieval(
    batches=fake.batched(columns, 2),
    tokenizer=letters,
    group="id",
    at=(1, 2),
    num_shown=3,
    num_results=2,
  )
  got = dict(evaluator.run(predict, {}))
  # Texts a (p), b (q), c (p), d (r), e (r). Picture p (1, 0) has the scores
  # .6 0 -1 .8 0: its best text a comes second. q (0, 1): .8 1 0 .6 -1, first.
  # r (.6, .8): 1 .8 -.6 .96 -.8: its best text d comes second.
  assert got["image_to_text/R@1"] == pytest.approx(1 / 3)
  assert got["image_to_text/R@2"] == pytest.approx(1.0)
  # By p, q, r: a .6 .8 1, third. b 0 1 .8, first. c -1 0 -.6, third.
  # d .8 .6 .96, first. e 0 -1 -.8, second.
  assert got["text_to_image/R@1"] == pytest.approx(2 / 5)
  assert got["text_to_image/R@2"] == pytest.approx(3 / 5)
  assert got["chance_R@2"] == pytest.approx(2 / 3)

  (artifact,) = evaluator.pictures(predict, {})
  (row,) = [r for r in artifact.data["rows"] if r["query"] == "b"]
  assert [r["score"] for r in row["results"]] == pytest.approx([1.0, 0.8])
  np.testing.assert_array_equal(row["results"][1]["image"], columns["image"][3])
