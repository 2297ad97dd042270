import pytest

from mmjax.build import datasets
from mmjax.core import errors
from mmjax.data.tokenizer import TextTokenizer


def test_tokenizer_is_trained_on_the_lines_of_a_file(tmp_path):
  source, out = tmp_path / "texts.txt", tmp_path / "tok.json"
  source.write_text("a red circle\n\n  \na red square\n", encoding="utf-8")

  made = datasets.train_tokenizer(source, 270, out)

  expected = TextTokenizer.train(["a red circle", "a red square"], 270)
  assert made.id == expected.id == TextTokenizer.load(out).id


def test_missing_text_says_what_was_expected(tmp_path):
  with pytest.raises(errors.UserError, match="No file at .*one text a line"):
    datasets.train_tokenizer(tmp_path / "none", 270, tmp_path / "out")


def test_empty_text_is_refused_and_nothing_written(tmp_path):
  source, out = tmp_path / "texts.txt", tmp_path / "tok.json"
  source.write_text("\n \n")

  with pytest.raises(errors.UserError, match="has no text"):
    datasets.train_tokenizer(source, 270, out)

  assert not out.exists()


def test_check_counts_the_examples_of_a_split():
  result, text = datasets.check("synthetic", "test")

  assert result.checked == {"test": 128}
  assert "128" in text
