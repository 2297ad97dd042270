import json
import unicodedata

import numpy as np
import pytest

from mmjax.core import errors
from mmjax.data import tokenizer_train
from mmjax.data.tokenizer import TextTokenizer

TEXTS = [
  "a red apple, a green apple",
  "Red wine and white wine",
  "红苹果和绿苹果",
  "the cat sat on the mat",
  "the red cat and the white cat sat on a green mat",
]
# A unigram forgets what texts of so few words could be without.
MORE = TEXTS * 5 + ["catmat applecat matapple thecat redapple 绿苹果红"] * 5


@pytest.fixture(scope="module")
def unigram():
  return TextTokenizer.train(MORE, 300, "unigram")


def _byte_names():
  printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
  others = [b for b in range(256) if b not in printable]
  names = {b: chr(b) for b in printable}
  names.update({b: chr(256 + i) for i, b in enumerate(others)})
  return names


def _best_score(word, scores):
  """Log probability of the likeliest way to cut a word, by position."""
  best = [0.0] + [-np.inf] * len(word)
  for end in range(1, len(word) + 1):
    for start in range(end):
      if word[start:end] in scores:
        score = best[start] + scores[word[start:end]]
        best[end] = max(best[end], score)
  return best[-1]


@pytest.mark.parametrize("word", ["apple", "catmat", "苹果", "Zebra"])
def test_unigram_cuts_are_the_likeliest(unigram, tmp_path, word):
  unigram.save(tmp_path / "t.json")
  vocab = json.loads((tmp_path / "t.json").read_text("utf-8"))["model"]["vocab"]
  names = _byte_names()
  spelled = "".join(names[b] for b in f" {word}".encode())
  want = _best_score(spelled, dict(map(tuple, vocab)))
  got = sum(vocab[i][1] for i in unigram.pieces(word))
  assert got == pytest.approx(want, abs=1e-6)


@pytest.mark.parametrize(
  "text",
  [
    "the cat",
    "naïve café \t two  spaces",
    "\u2581 <mask> <pad> <unk> <0x41>",
    "\U0001f600 \U0001f468\u200d\U0001f469 \x00\x7f",
    "العربية हिन्दी \ufeff\u202e \ud7ff\ue000\U0010ffff",
    "",
  ],
)
def test_no_text_is_unknown_to_a_unigram(unigram, text):
  ids = unigram.encode(text, 200)
  assert unigram.decode(ids) == unicodedata.normalize("NFC", text)
  content = ids[1 : 1 + len(unigram.pieces(text))]
  assert unigram.content[content].all()


def test_a_unigram_learns_words_and_has_the_five_special_tokens(unigram):
  assert unigram.kind == "Unigram" and unigram.appended == ()
  ids = (unigram.pad_id, unigram.bos_id, unigram.eos_id, unigram.mask_id)
  assert (*ids, unigram.sep_id) == (0, 1, 2, 3, 4)
  assert 261 < unigram.vocab_size <= 300 and unigram.unknown_id is None
  assert len(unigram.pieces("the cat sat")) < len("the cat sat") / 2
  assert len(unigram.pieces("苹果")) < len("苹果".encode())


@pytest.mark.parametrize("kind", tokenizer_train.KINDS)
def test_the_same_texts_give_the_same_tokenizer(kind):
  # Maps of the library are in another order each time.
  assert len({TextTokenizer.train(MORE, 290, kind).id for _ in range(5)}) == 1


def test_errors_say_what_is_possible():
  with pytest.raises(errors.UserError, match="Did you mean 'unigram'"):
    TextTokenizer.train(TEXTS, 300, "unigrams")
  with pytest.raises(errors.UserError, match="at least 261"):
    TextTokenizer.train(TEXTS, 260, "unigram")
