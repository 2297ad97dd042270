import json
import pickle
import string
import unicodedata

import numpy as np
import pytest

from mmjax.core import errors
from mmjax.data import chat, starter, tokenizer
from mmjax.data.tokenizer import TextTokenizer

TEXTS = [
  "a red apple, a green apple",
  "Red wine and white wine",
  "红苹果和绿苹果",
  "the cat sat on the mat",
]
ANY_TEXT = [
  "Grinning FACE, happy",
  "笑脸, 高兴",
  "naïve café \t two  spaces",
  "\U0001f600 \U0001f468\u200d\U0001f469\u200d\U0001f467 \x00\x7f",
  "العربية हिन्दी",
]


@pytest.fixture(scope="module")
def starter_tokenizer():
  return TextTokenizer.load("starter")


def test_training_the_starter_tokenizer_again_gives_the_shipped_file(tmp_path):
  tokenizer.train_starter().save(tmp_path / "again.json")
  shipped = starter.tokenizer_path().read_bytes()
  assert (tmp_path / "again.json").read_bytes() == shipped


@pytest.mark.parametrize("text", ANY_TEXT)
def test_decode_inverts_encode_for_any_text(starter_tokenizer, text):
  ids = starter_tokenizer.encode(text, 200)
  want = unicodedata.normalize("NFC", text)
  assert starter_tokenizer.decode(ids) == want


def test_encode_is_bos_text_eos_padding():
  made = TextTokenizer.train(TEXTS, 300)
  ids = made.encode("the cat", 16)
  assert ids.dtype == np.int32 and ids.shape == (16,)
  content = made.pieces("the cat")
  padding = [0] * (14 - len(content))
  assert ids.tolist() == [1, *content, 2, *padding]
  assert made.num_tokens("the cat") == len(content) + 2


def test_a_layout_without_bos_may_be_filled_with_eos():
  made = TextTokenizer.train(TEXTS, 300)
  other = made.laid_out(bos=False, fill="eos")
  content = made.pieces("the cat")
  filled = [2] * (16 - len(content))
  for found in (other, pickle.loads(pickle.dumps(other))):
    assert found.encode("the cat", 16).tolist() == [*content, *filled]
  assert other.num_tokens("the cat") == len(content) + 1
  long = other.encode("the cat sat " * 9, 4).tolist()
  assert 2 not in long[:3] and long[3] == 2
  padded = made.laid_out(bos=False).encode("the cat", 16).tolist()
  assert padded == [*content, 2, *[0] * (15 - len(content))]
  assert other.id != made.id  # A model fits one of them.
  assert other.laid_out(bos=True).id == made.id
  with pytest.raises(errors.UserError, match="Did you mean 'eos'"):
    made.laid_out(bos=False, fill="eso")


def test_encode_keeps_eos_when_it_cuts(starter_tokenizer):
  ids = starter_tokenizer.encode("happy " * 50, 8)
  assert ids[0] == 1 and ids[-1] == 2
  assert (ids[1:-1] >= 5).all()
  assert starter_tokenizer.encode("", 4).tolist() == [1, 2, 0, 0]


def _bpe(word: str, content: dict) -> list[int]:
  """Textbook byte-pair merging: again and again the earliest-learnt pair."""
  printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
  others = [b for b in range(256) if b not in printable]
  shown = {b: chr(b) for b in printable}
  shown.update({b: chr(256 + i) for i, b in enumerate(others)})
  rank = {tuple(pair): i for i, pair in enumerate(content["model"]["merges"])}
  parts = [shown[b] for b in word.encode()]
  while True:
    pairs = [
      (rank.get(p, 10**9), i)
      for i, p in enumerate(zip(parts, parts[1:], strict=False))
    ]
    best, i = min(pairs, default=(10**9, 0))
    if best == 10**9:
      return [content["model"]["vocab"][part] for part in parts]
    parts[i : i + 2] = [parts[i] + parts[i + 1]]


@pytest.mark.parametrize("word", ["grinning", "Unbelievable", "嘿嘿笑脸", "q"])
def test_pieces_agree_with_textbook_bpe(starter_tokenizer, word):
  content = json.loads(starter.tokenizer_path().read_text(encoding="utf-8"))
  assert starter_tokenizer.pieces(word) == _bpe(" " + word, content)


def test_a_word_has_the_same_tokens_anywhere(starter_tokenizer):
  alone = starter_tokenizer.pieces("happy")
  inside = starter_tokenizer.pieces("smile, happy")
  assert inside[-len(alone) :] == alone


def test_special_tokens_cannot_be_written_in_a_text(starter_tokenizer):
  text = "a <mask> and a <pad>"
  ids = starter_tokenizer.encode(text, 40)
  assert set(ids[1:].tolist()) & {3, 1, 4} == set()
  assert starter_tokenizer.decode(ids) == text


def test_token_is_readable(starter_tokenizer):
  def shown(text):
    return [starter_tokenizer.token(i) for i in starter_tokenizer.pieces(text)]

  assert "".join(shown("grinning face 笑")) == " grinning face 笑"
  assert starter_tokenizer.token(3) == "<mask>"
  # A rare character is its bytes: U+1F9FF is F0 9F A7 BF.
  assert "".join(shown("\U0001f9ff")).endswith("<F0><9F><A7><BF>")
  with pytest.raises(errors.UserError, match="outside the vocabulary of 2048"):
    starter_tokenizer.token(2048)


def test_vocabulary_and_special_ids(starter_tokenizer):
  t = starter_tokenizer
  assert t.vocab_size == 2048
  ids = (t.pad_id, t.bos_id, t.eos_id, t.mask_id, t.sep_id)
  assert ids == (0, 1, 2, 3, 4)
  names = [t.token(i) for i in np.flatnonzero(~t.content).tolist()]
  assert names == ["<pad>", "<bos>", "<eos>", "<mask>", "<sep>"]


def test_id_is_of_the_content(tmp_path):
  made = TextTokenizer.train(TEXTS, 280)
  made.save(tmp_path / "a.json")
  loaded = TextTokenizer.load(tmp_path / "a.json")
  assert loaded.id == made.id
  indented = json.dumps(json.loads((tmp_path / "a.json").read_text()), indent=2)
  assert TextTokenizer(indented).id == made.id
  assert TextTokenizer.train(TEXTS, 281).id != made.id


def test_errors_say_what_to_do(tmp_path):
  with pytest.raises(errors.UserError, match="at least 261"):
    TextTokenizer.train(TEXTS, 100)
  with pytest.raises(errors.UserError, match="the word 'starter'"):
    TextTokenizer.load(tmp_path / "none.json")
  (tmp_path / "bad.json").write_text("{}")
  with pytest.raises(errors.UserError, match="bad.json"):
    TextTokenizer.load(tmp_path / "bad.json")
  with pytest.raises(errors.UserError, match="at least 2"):
    TextTokenizer.load("starter").encode("x", 1)


def test_special_tokens_of_other_names_keep_their_ids(starter_tokenizer):
  content = json.loads(starter.tokenizer_path().read_text(encoding="utf-8"))
  content["added_tokens"][3]["content"] = "[MASK]"
  vocab = content["model"]["vocab"]
  vocab["[MASK]"] = vocab.pop("<mask>")
  made = TextTokenizer(json.dumps(content))
  assert made.mask_id == 3 and made.vocab_size == 2048
  assert made.token(3) == "[MASK]" and made.id != starter_tokenizer.id


def test_a_pickled_tokenizer_is_the_same(starter_tokenizer):
  again = pickle.loads(pickle.dumps(starter_tokenizer.with_chat()))
  assert again.id == starter_tokenizer.id and again.chat is not None
  text = "a <mask> 嘿"
  assert again.pieces(text) == starter_tokenizer.pieces(text)


def test_tokens_that_start_a_word_begin_with_space_or_punctuation():
  tokenizer = TextTokenizer.load("starter")
  starts = tokenizer.starts_word
  assert starts.shape == (tokenizer.vocab_size,) and not starts[:5].any()
  for i in range(5, tokenizer.vocab_size):
    first = tokenizer.token(i)[0]
    if tokenizer.token(i).startswith("<") and len(tokenizer.token(i)) > 1:
      continue  # A piece of a character, shown as its bytes.
    assert starts[i] == (first in " \t\n\r\v\f" or first in string.punctuation)
  ids = tokenizer.pieces("red apples, unbelievable")
  words = np.split(ids, np.flatnonzero(starts[ids])[1:])
  assert [tokenizer.decode(w) for w in words] == [
    "red",
    "apples",
    ",",
    "unbelievable",
  ]


def test_a_chat_template_stands_in_the_file_and_changes_no_token(
  starter_tokenizer, tmp_path
):
  template = chat.ChatTemplate(user="U:", assistant="A:")
  starter_tokenizer.with_chat(template).save(tmp_path / "chat.json")
  section = json.loads((tmp_path / "chat.json").read_text())["chat_template"]
  assert section == {"assistant": "A:", "system": "System:", "user": "U:"}
  read = TextTokenizer.load(tmp_path / "chat.json")
  assert read.chat == template
  assert read.with_chat().chat == template
  assert starter_tokenizer.chat is None
  assert starter_tokenizer.with_chat().chat == chat.ChatTemplate()
  # Models that know the one know the other.
  assert read.id == starter_tokenizer.id
  assert read.pieces("a cat") == starter_tokenizer.pieces("a cat")
  starter_tokenizer.save(tmp_path / "plain.json")
  shipped = starter.tokenizer_path().read_bytes()
  assert (tmp_path / "plain.json").read_bytes() == shipped


def test_a_wrong_chat_template_is_refused(starter_tokenizer, tmp_path):
  file = tmp_path / "chat.json"
  starter_tokenizer.with_chat().save(file)
  file.write_text(file.read_text().replace('"user":', '"usr":'))
  with pytest.raises(errors.UserError, match="Did you mean 'user'"):
    TextTokenizer.load(file)


def test_a_long_text_has_the_tokens_of_its_beginning():
  made = TextTokenizer.load("starter")
  text = "a red apple, 苹果 and so on " * 2000
  assert len(text) > tokenizer.MOST_CHARACTERS * 8
  expected = [made.bos_id, *made.pieces(text)[:6], made.eos_id]
  np.testing.assert_array_equal(made.encode(text, 8), expected)
