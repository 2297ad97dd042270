import numpy as np
import pytest

from mmjax.core import errors
from mmjax.evaluators import ranking
from mmjax.evaluators.knn import Knn


@pytest.fixture
def made(fake, rng):
  def columns(count):
    return {
      "image": rng.normal(size=(count, 3)).astype(np.float32),
      "label": rng.integers(0, 4, count).astype(np.int32),
    }

  train, test = columns(17), columns(10)
  predict = fake.predict_with(pool=lambda batch, m, view: batch["image"])
  return (
    lambda **options: Knn(
      batches=fake.batched(test, 4),
      train_batches=fake.batched(train, 5),
      num_classes=4,
      **options,
    ),
    predict,
    train,
    test,
  )


def test_votes_are_weighed_by_similarity(made, monkeypatch):
  monkeypatch.setattr(ranking, "CHUNK", 3)  # Several chunks, one ragged.
  make, predict, train, test = made
  got = dict(make(k=5, temperature=0.3, top_k=(1, 2, 4)).run(predict, {}))

  hits = {1: 0, 2: 0}
  for query, label in zip(test["image"], test["label"], strict=True):
    cosines = []
    for known, other in zip(train["image"], train["label"], strict=True):
      norms = np.linalg.norm(query) * np.linalg.norm(known)
      cosines.append((float(query @ known / norms), int(other)))
    votes = dict.fromkeys(range(4), 0.0)
    for cosine, other in sorted(cosines, reverse=True)[:5]:
      votes[other] += np.exp(cosine / 0.3)
    order = sorted(votes, key=votes.get, reverse=True)
    for k in hits:
      # A class without votes ties with others, which count against it.
      hits[k] += label in order[:k] and votes[label] > 0
  assert {k: got[f"top{k}"] for k in hits} == {
    k: pytest.approx(n / 10) for k, n in hits.items()
  }
  assert "top4" not in got


def test_more_neighbours_than_examples_are_all(made):
  make, predict, _, _ = made
  assert dict(make(k=17).run(predict, {})) == dict(make(k=99).run(predict, {}))


def test_wrong_options_are_refused(made):
  with pytest.raises(errors.UserError, match="k=0"):
    made[0](k=0)
  with pytest.raises(errors.UserError, match="Did you mean 'pooled'"):
    made[0](features="poolde")
