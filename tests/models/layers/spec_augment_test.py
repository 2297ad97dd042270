import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core import errors
from mmjax.models.layers.spec_augment import (
  SpecAugmentOptions,
  spec_augment,
  spec_augment_options,
)

KEY = jax.random.key(0)
B, F, M = 200, 40, 12
# Real frames of each example: all; the first 10; 12 to 25.
FIRST, LAST = np.array([(0, 40), (0, 10), (12, 26)] * 67)[:B].T


@pytest.fixture(scope="module")
def mask():
  frames = np.arange(F)[None]
  return (FIRST[:, None] <= frames) & (frames < LAST[:, None])


def _hidden(mask, key=KEY, **options):
  """Where a spectrogram of ones became 0."""
  out = spec_augment(
    key,
    jnp.ones((B, F, M)),
    jnp.asarray(mask),
    SpecAugmentOptions(**options),
  )
  out = np.asarray(out)
  assert set(np.unique(out)) <= {0.0, 1.0}
  return out == 0.0


def _runs(row):
  """Starts and lengths of the stretches of True."""
  edges = np.flatnonzero(np.diff(np.concatenate([[0], row, [0]])))
  return list(zip(edges[::2], edges[1::2] - edges[::2], strict=True))


def test_one_stretch_of_time_within_the_real_frames(mask):
  hidden = _hidden(mask, time_masks=1, max_frames=8)
  rows = hidden.all(axis=2)
  np.testing.assert_array_equal(rows, hidden.any(axis=2))
  lengths, starts = [], []
  for row, first, last in zip(rows, FIRST, LAST, strict=True):
    runs = _runs(row)
    assert len(runs) <= 1
    start, length = runs[0] if runs else (first, 0)
    assert first <= start and start + length <= last
    lengths.append(length)
    starts.append((start - first) / max(1, last - first - length))
  # All widths from 0 to 8 are as likely, and so are all places.
  counts = np.bincount(lengths, minlength=9)
  assert len(counts) == 9 and counts.min() >= 8 and counts.max() <= 45
  assert 0.4 < np.mean(starts) < 0.6 and max(starts) == 1.0


def test_share_of_the_frames_limits_a_stretch(mask):
  rows = _hidden(mask, time_masks=1, max_frames=40, max_share=0.5).all(axis=2)
  share = rows.sum(axis=1) / (LAST - FIRST)
  assert share.max() == 0.5


def test_bands_hide_the_same_mels_in_all_frames(mask):
  hidden = _hidden(mask, mel_masks=1, max_mels=3)
  bands = hidden.all(axis=1)
  np.testing.assert_array_equal(bands, hidden.any(axis=1))
  widths = [sum(n for _, n in _runs(row)) for row in bands]
  assert sorted(set(widths)) == [0, 1, 2, 3]
  assert all(len(_runs(row)) <= 1 for row in bands)
  assert bands.any(axis=0).all()  # Each mel is hidden in some example.


def test_number_of_masks_and_wide_limits(mask):
  rows = _hidden(mask, time_masks=2, max_frames=3).all(axis=2)
  assert {len(_runs(row)) for row in rows} >= {1, 2}
  # Wider than there is room for: all, at most.
  bands = _hidden(mask, mel_masks=1, max_mels=100).all(axis=1)
  assert bands.all(axis=1).any() and not bands.all()


def test_masks_are_a_function_of_the_key(mask):
  options = dict(time_masks=1, mel_masks=1)
  first = _hidden(mask, **options)
  np.testing.assert_array_equal(first, _hidden(mask, **options))
  assert (first != _hidden(mask, jax.random.key(1), **options)).any()
  # Examples differ: all frames of these are real.
  assert (first[0] != first[3]).any()


def test_without_real_frames_nothing_is_hidden():
  assert not _hidden(np.zeros((B, F), bool), time_masks=3).any()


def test_options():
  assert not SpecAugmentOptions().active
  assert spec_augment_options(dict(mel_masks=1)).active
  with pytest.raises(errors.UserError, match="max_share=0"):
    SpecAugmentOptions(max_share=0.0)
  with pytest.raises(errors.UserError, match="time_masks=-1"):
    spec_augment_options(dict(time_masks=-1))
  with pytest.raises(errors.UserError, match="spec_augment.freq_masks"):
    spec_augment_options(dict(freq_masks=1))
