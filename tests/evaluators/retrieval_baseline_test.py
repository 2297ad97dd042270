import numpy as np
import pytest

from mmjax.core import errors
from mmjax.evaluators.retrieval_baseline import (
  RetrievalBaseline,
  match_durations,
  match_looks,
)


def test_durations_are_ranked_by_distance_to_a_line():
  rng = np.random.default_rng(0)
  letters = rng.integers(5, 60, 40).astype(float)
  lengths = 800.0 * letters + 4000 + rng.normal(size=40) * 900
  texts, durations = np.array([10.0, 20.0, 31.0]), np.array([9e3, 4e4, 2.5e4])
  a, b = match_durations((lengths, letters), (durations, texts))
  # Least squares by the normal equations.
  matrix = np.stack([letters, np.ones(40)], axis=1)
  slope, start = np.linalg.solve(matrix.T @ matrix, matrix.T @ lengths)
  distance = np.abs(durations[:, None] - (slope * texts + start)[None])
  np.testing.assert_array_equal(
    np.argsort(-(a @ b.T), axis=1), np.argsort(distance, axis=1)
  )
  np.testing.assert_array_equal(
    np.argsort(-(b @ a.T), axis=1), np.argsort(distance.T, axis=1)
  )


def test_looks_are_matched_by_ridge_regression():
  rng = np.random.default_rng(1)
  x, queries = rng.normal(size=(12, 5)), rng.normal(size=(4, 5))
  y = rng.integers(0, 2, (12, 6)).astype(float)
  words = rng.integers(0, 2, (4, 6)).astype(float)
  expected, unit_words = match_looks((x, y), (queries, words))

  rarity = np.log(13 / (1 + (y > 0).sum(axis=0)))

  def unit(v):
    return v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-12)

  targets = unit(y * rarity)
  centred, mean = x - x.mean(axis=0), targets.mean(axis=0)
  # The primal form, with as many equations as features.
  penalty = 10.0 * 12 * centred.var() * np.eye(5)
  weights = np.linalg.solve(
    centred.T @ centred + penalty, centred.T @ (targets - mean)
  )
  want = unit((queries - x.mean(axis=0)) @ weights + mean)
  np.testing.assert_allclose(expected, want, rtol=1e-9)
  np.testing.assert_allclose(unit_words, unit(words * rarity))


def _evaluator(fake, letters, kind, modality, columns):
  train = {n: v[:6] for n, v in columns.items()}
  test = {n: v[6:] for n, v in columns.items()}
  return RetrievalBaseline(
    batches=fake.batched(test, 3),
    train_batches=fake.batched(train, 4),
    tokenizer=letters,
    kind=kind,
    modality=modality,
    pixels=2,
    at=(1, 2),
  )


def test_durations_come_from_masks_and_texts(fake, letters):
  # Three lengths of text; recordings of exactly 100 samples a letter.
  lengths = [1, 2, 3, 1, 2, 3, 1, 2, 3]
  text = np.array([[5] * n + [0] * (3 - n) for n in lengths], np.int32)
  mask = np.arange(300)[None] < 100 * np.array(lengths)[:, None]
  columns = {"text": text, "audio": mask * 0.5, "audio_mask": mask}
  made = _evaluator(fake, letters, "duration", "audio", columns)
  got = dict(made.run(fake.predict_with(), {}))
  assert got["audio_to_text/R@1"] == got["text_to_audio/R@1"] == 1.0
  assert got["chance_R@2"] == pytest.approx(2 / 3)


def test_clips_are_seen_as_their_mean_frame(fake, letters):
  # Red clips are said "b", green "c", blue "d"; frames flicker around it.
  which = np.array([0, 1, 2] * 3)
  video = np.zeros((9, 2, 4, 4, 3), np.uint8)
  for row, color in zip(video, which, strict=True):
    row[0, ..., color], row[1, ..., color] = 255, 155
  text = (6 + which)[:, None].astype(np.int32)
  columns = {"text": text, "video": video}
  made = _evaluator(fake, letters, "mean_frame", "video", columns)
  got = dict(made.run(fake.predict_with(), {}))
  assert got["video_to_text/R@1"] == got["text_to_video/R@1"] == 1.0


def test_an_unknown_kind_is_refused_with_the_nearest_name(fake, letters):
  with pytest.raises(errors.UserError, match="Did you mean 'duration'"):
    _evaluator(fake, letters, "durations", "audio", {"text": np.zeros((9, 1))})
