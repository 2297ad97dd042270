import logging

import pytest

from mmjax.core import errors
from mmjax.data import broken


def _bad(index, reason="the disk is gone", key=""):
  return broken.BadExample(
    reason, source="mine", split="train", index=index, key=key
  )


def _count(bad, seen, broken_ones):
  """Sees so many examples; then some turn out to be broken."""
  for _ in range(seen):
    bad.see()
  for index in broken_ones:
    bad.add(_bad(index))


def test_a_bad_example_is_no_fault_of_the_config():
  bad = _bad(3, key="cat.png")
  assert not isinstance(bad, errors.UserError)
  assert str(bad) == (
    "Example 3 (cat.png) of 'mine', split 'train', cannot be used: the disk "
    "is gone"
  )


@pytest.mark.parametrize(
  "reason, kind",
  [
    (
      "40x30 pixels, more than max_pixels=9",
      "#x# pixels, more than max_pixels=#",
    ),
    (
      "holds None, expected uint8[h, w, 3]",
      "holds None, expected uint8[h, w, #]",
    ),
    ("the recording has 44100 Hz, not 8000.5", "the recording has # Hz, not #"),
    (
      "cannot identify <BytesIO object at 0x7fA0>",
      "cannot identify <BytesIO object>",
    ),
    (
      "[Errno 2] No such file: '/data/a 1.png'",
      "[Errno #] No such file: '...'",
    ),
    ("field 'image' holds float32[7]", "field 'image' holds float32[#]"),
  ],
)
def test_reasons_are_counted_without_what_is_of_one_example(reason, kind):
  assert broken.kind(reason) == kind


# 1000 are taken as seen while fewer were, or all if there are fewer.
@pytest.mark.parametrize(
  "length, fraction, seen, allowed",
  [
    (50, 0.01, 5, 0),
    (50, 0.1, 5, 5),
    (100, 0.01, 1, 1),
    (10_000, 0.01, 11, 10),
    (10_000, 0.01, 1500, 15),
    (2_000, 0.01, 5000, 20),
    (10_000, 0.29, 1, 290),  # 0.29 * 100 is 28.999999999999996.
    (100, 0.29, 1, 29),
    (10_000, 0.0, 5000, 0),
    (10, 1.0, 10, 10),
  ],
)
def test_the_limit_is_a_share_of_what_was_seen(length, fraction, seen, allowed):
  bad = broken.BadExamples("mine", "train", length, fraction)
  _count(bad, seen, range(allowed))
  assert len(bad) == allowed
  if allowed < length:
    with pytest.raises(errors.UserError, match=f"allows {allowed} of "):
      bad.add(_bad(allowed))


def test_an_example_counts_once_in_many_epochs():
  bad = broken.BadExamples("mine", "train", 100, 0.02)
  for _ in range(5):
    _count(bad, 100, [3, 7])
  assert len(bad) == 2
  with pytest.raises(errors.UserError, match="3 of the 100 examples seen"):
    bad.add(_bad(8))


def test_the_error_lists_reasons_with_counts_and_ten_examples():
  bad = broken.BadExamples("mine", "train", 15, 13 / 15)
  for i in range(12):
    bad.add(_bad(i, f"{i}x9 pixels are too many", key=f"k{i}"))
  bad.add(_bad(12, "no sound"))
  with pytest.raises(errors.UserError) as e:
    bad.add(_bad(13, "no sound"))

  lines = str(e.value).splitlines()
  assert "14 of the 0 examples seen of 'mine', split 'train'" in lines[0]
  assert lines[1].split(maxsplit=1) == ["12", "#x# pixels are too many"]
  assert lines[2].split(maxsplit=1) == ["2", "no sound"]
  assert lines[4:14] == [
    f"  train[{i}] (k{i}): {i}x9 pixels are too many" for i in range(10)
  ]
  assert "mmjax data check" in lines[14] and "max_bad_fraction" in lines[14]
  assert bad.reasons == {"#x# pixels are too many": 12, "no sound": 2}


def test_each_is_named_in_the_log_once_and_not_without_end(caplog):
  bad = broken.BadExamples("mine", "train", 1000, 1.0)
  with caplog.at_level(logging.WARNING):
    for _ in range(2):
      _count(bad, 1000, range(broken.MAX_NAMED + 5))
  names = [r.getMessage() for r in caplog.records]
  assert len(names) == broken.MAX_NAMED + 1
  assert names[7] == f"Skipped. {_bad(7)}"
  assert "only counted" in names[-1]
  assert len(bad) == broken.MAX_NAMED + 5
