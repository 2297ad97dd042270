from types import SimpleNamespace

import numpy as np
import pytest

from mmjax.evaluators.reconstruction import Reconstruction

NUM_CODES = 6
CODES = np.array([[0, 1], [1, 1], [3, 1]], np.int32)


@pytest.fixture
def made(fake, rng):
  image = rng.integers(0, 256, (3, 2, 2, 3), dtype=np.uint8)
  back = rng.uniform(-0.1, 1.1, (3, 2, 2, 3)).astype(np.float32)
  predict = fake.predict_with(
    reconstruct=lambda batch, name, view: SimpleNamespace(
      image=batch["back"], codes=batch["codes"]
    ),
    codebook_size=lambda batch, name, view: NUM_CODES,
  )
  columns = {"image": image, "back": back, "codes": CODES}
  evaluator = Reconstruction(batches=fake.batched(columns, 2), num_shown=2)
  return evaluator, predict, image, back


def test_error_and_psnr(made):
  evaluator, predict, image, back = made
  got = dict(evaluator.run(predict, {}))
  expected = np.mean((back.astype(np.float64) - image / 255.0) ** 2)
  assert got["mean_squared_error"] == pytest.approx(expected, rel=1e-5)
  assert got["psnr"] == pytest.approx(10 * np.log10(1 / expected), rel=1e-5)


def test_usage_and_perplexity_leave_fillers_out(made):
  evaluator, predict, _, _ = made
  got = dict(evaluator.run(predict, {}))
  assert got["usage"] == pytest.approx(3 / NUM_CODES)
  p = np.array([1, 4, 1]) / 6  # Codes 0, 1 and 3.
  expected = np.exp(-np.sum(p * np.log(p)))
  assert got["perplexity"] == pytest.approx(expected, rel=1e-6)


def test_pictures_stand_beside_their_reconstructions(made):
  evaluator, predict, image, back = made
  pairs, bars = evaluator.pictures(predict, {})
  np.testing.assert_array_equal(pairs.data["images"][:, 0], image[[0, 2]])
  expected = np.round(np.clip(back[[0, 2]], 0, 1) * 255)
  np.testing.assert_allclose(pairs.data["images"][:, 1], expected, atol=1)
  assert bars.data["values"].tolist() == [4, 1, 1, 0, 0, 0]
  assert bars.data["names"][0] == "1"
