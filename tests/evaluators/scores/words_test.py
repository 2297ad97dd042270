import pytest

from mmjax.evaluators.scores.words import words


@pytest.mark.parametrize(
  ("text", "expected"),
  [
    ("A red Circle, top-left!", ["a", "red", "circle", "top-left"]),
    ("it's  5 o'clock.", ["it's", "5", "o'clock"]),
    ("红色 圆形", ["红", "色", "圆", "形"]),
    ("a 圆形 shape", ["a", "圆", "形", "shape"]),
    ("Größe – naïve", ["größe", "naïve"]),
    ("?!", []),
  ],
)
def test_words_are_lower_case_and_without_punctuation(text, expected):
  assert words(text) == expected
