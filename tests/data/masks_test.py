import numpy as np
import pytest

from mmjax.data import masks


@pytest.mark.parametrize("strategy", masks.STRATEGIES)
@pytest.mark.parametrize(
  "grid, count", [((8, 8), 32), ((14, 14), 75), ((3, 5), 14), ((1, 7), 1)]
)
def test_image_masks_have_the_exact_count_sorted_and_distinct(
  rng, strategy, grid, count
):
  for _ in range(50):
    hidden = masks.STRATEGIES[strategy](rng, grid, count)
    assert hidden.dtype == np.int32 and hidden.shape == (count,)
    assert (np.diff(hidden) > 0).all()
    assert hidden[0] >= 0 and hidden[-1] < grid[0] * grid[1]


def test_random_mask_hides_every_patch_equally_often(rng):
  times = np.zeros(16)
  for _ in range(4000):
    times[masks.random_mask(rng, (4, 4), 4)] += 1
  # 1000 each; binomial with standard deviation sqrt(4000 * 1/4 * 3/4) = 27.
  assert np.abs(times - 1000).max() < 5 * 27


def _same_neighbours(hidden, grid):
  """Share of horizontally neighbouring patches that are hidden alike."""
  picture = np.zeros(grid, bool)
  picture.flat[hidden] = True
  return (picture[:, 1:] == picture[:, :-1]).mean()


def test_blockwise_mask_hides_blocks(rng):
  def mean(strategy):
    draw = masks.STRATEGIES[strategy]
    return np.mean(
      [_same_neighbours(draw(rng, (14, 14), 98), (14, 14)) for _ in range(100)]
    )

  assert mean("random") == pytest.approx(0.5, abs=0.02)
  assert mean("blockwise") > 0.8


@pytest.mark.parametrize("strategy", masks.STRATEGIES)
def test_image_masks_depend_on_the_generator_only(strategy):
  def draw(seed):
    rng = np.random.default_rng(seed)
    return masks.STRATEGIES[strategy](rng, (8, 8), 20).tolist()

  assert draw(1) == draw(1)
  assert draw(1) != draw(2)


def _mask(rng, tokens, rate=0.15, slots=20):
  return masks.bert_mask(
    rng,
    np.array(tokens, np.int32),
    rate=rate,
    slots=slots,
    mask_id=3,
    num_special=5,
    vocab_size=1000,
  )


def test_bert_mask_hides_80_10_10(rng):
  tokens = np.full(4000, 7)
  out = _mask(rng, tokens, rate=0.5, slots=2000)
  assert out.hidden_mask.all()
  shown = out.tokens[out.hidden]
  # Standard deviation of a share of 2000 is at most 0.009.
  assert (shown == 3).mean() == pytest.approx(0.8, abs=0.04)
  assert (shown == 7).mean() == pytest.approx(0.1, abs=0.03)
  substitutes = shown[(shown != 3) & (shown != 7)]
  assert len(substitutes) / 2000 == pytest.approx(0.1, abs=0.03)
  assert substitutes.min() >= 5 and substitutes.max() < 1000
  assert substitutes.mean() == pytest.approx(502, abs=100)


def test_bert_mask_leaves_visible_and_special_tokens_alone(rng):
  tokens = np.array([1, 10, 11, 4, 12, 13, 2, 0, 0, 0], np.int32)
  for _ in range(100):
    out = _mask(rng, tokens, rate=0.5, slots=5)
    hidden = out.hidden[out.hidden_mask]
    assert set(hidden) <= {1, 2, 4, 5}
    visible = np.setdiff1d(np.arange(10), hidden)
    np.testing.assert_array_equal(out.tokens[visible], tokens[visible])


@pytest.mark.parametrize(
  "length, rate, slots, expected",
  [(1, 0.15, 5, 1), (20, 0.15, 5, 3), (40, 0.15, 5, 5), (0, 0.15, 5, 0)],
)
def test_bert_mask_count(rng, length, rate, slots, expected):
  tokens = [1, *range(10, 10 + length), 2]
  out = _mask(rng, tokens, rate, slots)
  assert out.hidden.shape == out.hidden_mask.shape == (slots,)
  assert out.hidden_mask.sum() == expected
  # Used slots first, ascending and distinct; the others are 0.
  assert (np.diff(out.hidden[:expected]) > 0).all()
  assert not out.hidden_mask[expected:].any()
  assert not out.hidden[expected:].any()


def test_bert_mask_hides_every_token_equally_often(rng):
  times = np.zeros(12)
  for _ in range(2000):
    out = _mask(rng, [1, *range(10, 20), 2], rate=0.3, slots=4)
    times[out.hidden[out.hidden_mask]] += 1
  # 600 each; standard deviation sqrt(2000 * 0.3 * 0.7) = 20.
  assert np.abs(times[1:11] - 600).max() < 5 * 20


@pytest.mark.parametrize(
  "rate, max_tokens, expected", [(0.15, 32, 5), (0.01, 8, 1), (0.5, 16, 8)]
)
def test_max_hidden(rate, max_tokens, expected):
  assert masks.max_hidden(rate, max_tokens) == expected
