import math

import pytest

from mmjax.report import formats


@pytest.mark.parametrize(
  "name, value, text",
  [
    ("image_to_text/R@1", 0.1234, "12.3%"),
    ("chance_R@10", 0.0353, "3.5%"),
    ("top1", 1.0, "100.0%"),
    ("codes/majority", 0.0, "0.0%"),
    ("psnr", 21.4826, "21.48 dB"),
    ("median_rank", 7.0, "7"),
    ("loss", 0.6121, "0.6121"),
    ("loss", float("nan"), "nan"),
    ("top1", float("nan"), "nan"),
    ("accuracy", 3.0, "3"),  # No share: shown as it is.
    ("perplexity", 12345.6, "12,346"),
    ("mean_squared_error", 1e-6, "1e-06"),
    ("big", 1e20, "1e+20"),
  ],
)
def test_a_metric_is_written_as_its_name_says(name, value, text):
  assert formats.metric(name, value) == text


@pytest.mark.parametrize(
  "value, text",
  [
    (64.0, "64"),
    (999.0, "999"),
    (999.9, "1.00 k"),
    (2_412_345.0, "2.41 M"),
    (86_500_000.0, "86.5 M"),
    (999_900_000.0, "1.00 B"),
    (175e9, "175 B"),
  ],
)
def test_large_numbers_have_three_digits(value, text):
  assert formats.count(value) == text


@pytest.mark.parametrize(
  "secs, text",
  [
    (41.6, "42 s"),
    (425.0, "7 min 05 s"),
    (12_000.0, "3 h 20 min"),
    (1e300, "unknown"),
  ],
)
def test_a_duration_has_two_units_at_most(secs, text):
  assert formats.duration(secs) == text


def test_an_instant_is_in_utc_and_never_fails():
  assert formats.instant(0.0) == "1970-01-01 00:00 UTC"
  assert formats.instant(1e30) == "at an unknown time"


def test_numbers_that_are_not_finite_are_read_from_strings():
  assert math.isnan(formats.number("nan"))
  assert formats.number("-inf") == -math.inf
  assert formats.number("fast") is None
  assert formats.number(True) is None
  assert formats.number(10**400) is None
