import json

import pytest

from mmjax.build import text_tokenizers
from mmjax.cli import main
from mmjax.core import errors
from mmjax.data.tokenizer import TextTokenizer


def _jsonl(folder, rows):
  file = folder / "pets.jsonl"
  file.write_text("".join(json.dumps(row) + "\n" for row in rows))
  return file


def test_lines_of_a_text_file_are_the_texts(tmp_path):
  source, out = tmp_path / "texts.txt", tmp_path / "tok.json"
  source.write_text("a red circle\n\n  \r\na red square\r\n", encoding="utf-8")

  made = text_tokenizers.train(str(source), out, vocab_size=270)

  expected = TextTokenizer.train(["a red circle", "a red square"], 270)
  assert made.tokenizer.id == expected.id == TextTokenizer.load(out).id
  assert made.num_texts == 2 and made.num_broken == 0


def test_fields_of_a_table_are_the_texts(tmp_path):
  rows = [
    {"text": "a cat", "question": "what is it?", "label": "x"},
    {"text": "a dog", "question": "who?", "label": "y"},
  ]
  source = f"manifest:{_jsonl(tmp_path, rows)}"
  seen = []

  made = text_tokenizers.train(
    source,
    tmp_path / "tok.json",
    vocab_size=270,
    fields=("text", "question"),
    on_progress=lambda done, total: seen.append((done, total)),
  )

  texts = ["a cat", "what is it?", "a dog", "who?"]
  assert made.tokenizer.id == TextTokenizer.train(texts, 270).id
  assert made.num_texts == 4 and seen == [(1, 2), (2, 2)]
  # Bytes and tokens of the same texts, counted here.
  tokens = sum(len(made.tokenizer.pieces(t)) for t in texts)
  assert made.fit.tokens == tokens and made.fit.bytes == 5 + 11 + 5 + 4


def test_examples_that_cannot_be_read_are_counted(tmp_path):
  file = _jsonl(tmp_path, [{"text": "a cat"}, {"text": "a dog"}])
  file.write_text(file.read_text() + "{broken\n")
  made = text_tokenizers.train(str(file), tmp_path / "t.json", vocab_size=270)
  assert made.num_texts == 2 and made.num_broken == 1


def test_what_is_wrong_is_said_and_nothing_is_written(tmp_path):
  out, empty = tmp_path / "tok.json", tmp_path / "texts.txt"
  table = str(_jsonl(tmp_path, [{"text": "a cat", "number": 3}]))
  empty.write_text("\n \n")
  for source, fields, message in (
    (str(tmp_path / "none.txt"), (), "No file at .*one text a line"),
    (str(empty), (), "has no text"),
    (table, ("txt",), "no field 'txt'. Did you mean 'text'"),
    (table, ("number",), "'number' holds a int, expected text"),
  ):
    with pytest.raises(errors.UserError, match=message):
      text_tokenizers.train(source, out, vocab_size=270, fields=fields)
  empty.write_bytes(b"caf\xe9\n")
  with pytest.raises(errors.UserError, match="not UTF-8"):
    text_tokenizers.train(str(empty), out, vocab_size=270)
  assert not out.exists()


def test_the_verb_prints_size_fit_and_an_example(tmp_path, capsys):
  source, out = tmp_path / "texts.txt", tmp_path / "tok.json"
  source.write_text("a cat\na cat and a cat\n")
  flags = [f"--source={source}", f"--out={out}", "--vocab_size=264"]

  status = main.main(["tokenizer", "train", *flags, "--kind=unigram"])

  said = capsys.readouterr().out
  made = TextTokenizer.load(out)
  assert status == 0 and made.kind == "Unigram"
  assert f"{out}: Unigram, {made.vocab_size} tokens, id {made.id}" in said
  assert "2 texts" in said and "bytes per token, 0 % unknown" in said
  cut = "|".join(made.token(i) for i in made.pieces("a cat"))
  assert f"for example: {cut}" in said
  assert main.main(["tokenizer", "train", *flags, "--kind=bpee"]) == 2
  assert "Did you mean 'bpe'" in capsys.readouterr().err
