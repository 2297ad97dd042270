import numpy as np
import pytest

from mmjax.core import errors
from mmjax.data.transforms.decoding import ParallelText, PrefixText


def _example(content, max_tokens=12):
  """A text of so many words between bos and eos."""
  return {"text_mask": np.arange(max_tokens) < content + 2}


def test_prefixes_are_drawn_evenly_and_leave_something_to_predict(rng):
  transform = PrefixText(rate=0.5)
  drawn = [
    transform(_example(7), rng, train=True)["text_prefix"] for _ in range(4000)
  ]
  # bos, and at most 3 of 7 words.
  values, counts = np.unique(drawn, return_counts=True)
  np.testing.assert_array_equal(values, [1, 2, 3, 4])
  np.testing.assert_allclose(counts / 4000, 0.25, atol=0.03)
  (spec,) = transform.specs().values()
  assert spec.matches(np.asarray(drawn))


@pytest.mark.parametrize("content", [0, 1])
def test_a_whole_text_may_be_given_but_eos(rng, content):
  transform = PrefixText(rate=1.0)
  drawn = {
    int(transform(_example(content), rng, train=False)["text_prefix"])
    for _ in range(50)
  }
  assert drawn == set(range(1, content + 2))


def test_so_many_texts_are_said_at_once(rng):
  transform = ParallelText(rate=0.75)
  drawn = [
    transform(_example(3), rng, train=False)["text_parallel"]
    for _ in range(4000)
  ]
  assert np.mean(drawn) == pytest.approx(0.75, abs=0.03)
  (spec,) = transform.specs().values()
  assert spec.matches(np.asarray(drawn))
  always = ParallelText(rate=1.0)
  assert always(_example(3), rng, train=True)["text_parallel"]


@pytest.mark.parametrize("cls", [PrefixText, ParallelText])
def test_a_rate_outside_of_its_range_is_refused(cls):
  with pytest.raises(errors.UserError, match=r"rate=1.2, expected \[0, 1\]"):
    cls(rate=1.2)
