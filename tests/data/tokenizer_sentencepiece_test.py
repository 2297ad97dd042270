"""Models of SentencePiece, made here; the oracle is the table of pieces."""

import io
import json
import sys

import numpy as np
import pytest

from mmjax.core import errors
from mmjax.data import masks
from mmjax.data.tokenizer import TextTokenizer

sentencepiece = pytest.importorskip("sentencepiece")

TEXTS = [
  "the cat sat on the mat",
  "the red cat and the white cat sat on a green mat",
  "a red apple and a green apple",
] * 5


def _train(folder, **options):
  out = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(TEXTS),
    model_writer=out,
    hard_vocab_limit=False,
    minloglevel=2,
    num_threads=1,
    **{"vocab_size": 320, "byte_fallback": True, **options},
  )
  file = folder / "spiece.model"
  file.write_bytes(out.getvalue())
  model = sentencepiece.SentencePieceProcessor(model_proto=out.getvalue())
  size = model.get_piece_size()
  return file, {
    model.id_to_piece(i): (i, model.get_score(i)) for i in range(size)
  }


def _likeliest(text, table):
  """The best way to cut a text, by the score of its pieces."""
  best = [(0.0, [])] + [(-np.inf, [])] * len(text)
  for end in range(1, len(text) + 1):
    for start in range(end):
      if text[start:end] in table:
        i, score = table[text[start:end]]
        so_far, ids = best[start]
        best[end] = max(best[end], (so_far + score, [*ids, i]))
  return best[-1][1]


@pytest.mark.parametrize("text", ["the cat", "green mats eat", "catapple"])
def test_unigram_model_gives_the_likeliest_pieces(tmp_path, text):
  file, table = _train(tmp_path)
  made = TextTokenizer.load(file)
  assert made.pieces(text) == _likeliest("▁" + text.replace(" ", "▁"), table)


def _merged(text, table):
  """Merges the pair with the best score, again and again."""
  parts = list(text)
  while True:
    pairs = [
      (table[a + b][1], -i)
      for i, (a, b) in enumerate(zip(parts, parts[1:], strict=False))
      if a + b in table
    ]
    if not pairs:
      return [table[part][0] for part in parts]
    i = -max(pairs)[1]
    parts[i : i + 2] = [parts[i] + parts[i + 1]]


@pytest.mark.parametrize("text", ["the cat", "green mats eat", "catapple"])
def test_bpe_model_merges_by_score(tmp_path, text):
  file, table = _train(tmp_path, model_type="bpe")
  made = TextTokenizer.load(file)
  assert made.pieces(text) == _merged("▁" + text.replace(" ", "▁"), table)


def test_a_model_keeps_its_ids_and_gets_what_it_lacks(tmp_path):
  file, table = _train(
    tmp_path, pad_id=0, eos_id=1, unk_id=2, bos_id=-1, byte_fallback=False
  )
  made = TextTokenizer.load(file)
  assert (made.pad_id, made.eos_id, made.sep_id) == (0, 1, 1)
  assert made.unknown_id == 2 and 2 in made.pieces("猫")
  assert (made.bos_id, made.mask_id) == (len(table), len(table) + 1)
  assert made.appended == ("<bos>", "<mask>")
  assert made.vocab_size == len(table) + 2
  assert np.flatnonzero(~made.content).tolist() == [
    *(0, 1, 2, len(table), len(table) + 1)
  ]
  assert set(made.pieces("</s> <mask>")) & {0, 1, made.mask_id} == set()


def test_roles_are_found_by_name_and_typed_ones_say_nothing(tmp_path):
  file, table = _train(
    tmp_path,
    control_symbols=["[CLS]", "[SEP]"],
    user_defined_symbols=["[MASK]"],
  )
  made = TextTokenizer.load(file)
  names = [made.token(i) for i in (made.bos_id, made.mask_id)]
  # Their own <s> comes before a name.
  assert names == ["<s>", "[MASK]"] and made.sep_id == table["[SEP]"][0]
  assert made.mask_id not in made.pieces("the [MASK] cat")


@pytest.mark.parametrize("text", ["猫 ab", "naïve cat", "cat \U0001f9ff"])
def test_bytes_stand_for_unknown_characters(tmp_path, text):
  made = TextTokenizer.load(_train(tmp_path)[0])
  ids = made.pieces(text)
  assert made.decode(ids) == text and made.unknown_id not in ids
  assert made.is_byte[ids].any()
  assert made.token(made.pieces("猫")[-1]) == "<AB>"  # E7 8C AB.


def test_words_begin_with_the_mark(tmp_path):
  made = TextTokenizer.load(_train(tmp_path)[0])
  ids = np.array(made.pieces("the applecat sat"), np.int32)
  vocabulary = masks.Vocabulary(made.mask_id, made.content, made.starts_word)
  words = masks.words(ids, vocabulary)
  assert [made.decode(ids[w]) for w in words] == ["the", "applecat", "sat"]


def test_the_one_json_file_of_a_run_reloads_it(tmp_path):
  made = TextTokenizer.load(_train(tmp_path)[0]).with_chat()
  made.save(tmp_path / "tokenizer.json")
  (tmp_path / "spiece.model").unlink()
  again = TextTokenizer.load(tmp_path / "tokenizer.json")
  assert again.id == made.id and again.chat == made.chat
  assert again.special == made.special and again.kind == "sentencepiece"
  assert again.pieces("the cat 猫") == made.pieces("the cat 猫")


def test_errors_name_the_package_and_the_file(tmp_path, monkeypatch):
  file, _ = _train(tmp_path)
  content = file.read_bytes()
  file.write_bytes(content[: len(content) // 2])
  with pytest.raises(errors.UserError, match="spiece.model.*Not a model of"):
    TextTokenizer.load(file)
  with pytest.raises(errors.UserError, match="Not a model of"):
    TextTokenizer(json.dumps({"sentencepiece": ""}))
  file.write_bytes(content)
  monkeypatch.setitem(sys.modules, "sentencepiece", None)
  with pytest.raises(errors.UserError, match="pip install 'mmjax.sentencepiec"):
    TextTokenizer.load(file)
