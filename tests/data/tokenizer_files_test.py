import json

import numpy as np
import pytest
from tokenizers import (
  AddedToken,
  Tokenizer,
  decoders,
  models,
  normalizers,
  pre_tokenizers,
)

from mmjax.core import errors
from mmjax.data import masks, tokenizer_files
from mmjax.data.tokenizer import TextTokenizer
from mmjax.data.tokenizer_fit import Fit
from mmjax.data.transforms import text

BERT = "[PAD] [unused0] [UNK] [CLS] [SEP] [MASK] un ##aff ##able aff cafe a ##a"
BERT = [*BERT.split(), ",", "!", "##s", "苹", "able"]


def _save(made, folder, special=()):
  made.add_special_tokens([AddedToken(s, special=True) for s in special])
  made.save(str(folder / "tokenizer.json"))
  return folder / "tokenizer.json"


def _vocab(folder, entries, **config):
  (folder / "vocab.txt").write_text("\n".join(entries) + "\n", encoding="utf-8")
  if config:
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
  return folder / "vocab.txt"


def _shown(made, text):
  return [made.token(i) for i in made.pieces(text)]


def _longest_first(word, entries):
  """The loop of the WordPiece paper: the longest entry, again and again."""
  out, start = [], 0
  while start < len(word):
    for end in range(len(word), start, -1):
      piece = ("##" if start else "") + word[start:end]
      if piece in entries:
        out.append(entries.index(piece))
        break
    else:
      return [entries.index("[UNK]")]
    start = end
  return out


@pytest.mark.parametrize("word", ["unaffable", "aa", "ableb", "a", "affs"])
def test_vocab_txt_agrees_with_longest_match_first(tmp_path, word):
  made = TextTokenizer.load(_vocab(tmp_path, BERT))
  assert made.pieces(word) == _longest_first(word, BERT)
  assert made.kind == "WordPiece" and made.vocab_size == len(BERT)


def test_vocab_txt_keeps_its_ids_and_has_all_roles(tmp_path):
  made = TextTokenizer.load(_vocab(tmp_path, BERT))
  assert (made.pad_id, made.bos_id, made.eos_id) == (0, 3, 4)
  assert (made.mask_id, made.sep_id, made.unknown_id) == (5, 4, 2)
  assert made.appended == ()
  assert made.encode("a", 5).tolist() == [3, BERT.index("a"), 4, 0, 0]
  # No content: the names of special tokens; what is merely unused is.
  assert np.flatnonzero(~made.content).tolist() == [0, 2, 3, 4, 5]
  assert _shown(made, "[MASK]") == ["[UNK]"] * 3


def test_case_and_accents_are_as_the_entries_or_the_config_say(tmp_path):
  small = TextTokenizer.load(_vocab(tmp_path, BERT))
  assert small.pieces("A Café") == [BERT.index("a"), BERT.index("cafe")]
  large = TextTokenizer.load(_vocab(tmp_path, [*BERT, "Paris"]))
  assert large.pieces("Paris A") == [len(BERT), BERT.index("[UNK]")]
  told = _vocab(tmp_path, BERT, do_lower_case=True, strip_accents=False)
  assert TextTokenizer.load(told).pieces("A CAFÉ") == [BERT.index("a"), 2]


def test_words_of_word_piece_end_before_what_goes_not_on(tmp_path):
  made = TextTokenizer.load(_vocab(tmp_path, BERT))
  ids = np.array(made.pieces("unaffable, 苹a unaff"), np.int32)
  vocabulary = masks.Vocabulary(made.mask_id, made.content, made.starts_word)
  assert [len(w) for w in masks.words(ids, vocabulary)] == [3, 1, 1, 1, 2]
  assert _shown(made, "unaff, a") == [" un", "aff", ",", " a"]
  assert made.decode(ids[:4]) == "unaffable,"


def _gpt2(folder):
  # " ab" is Ġab: merges Ġ+a, then Ġa+b.
  alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
  vocab = {c: i for i, c in enumerate([*alphabet, "Ġa", "Ġab", "ab"])}
  made = Tokenizer(models.BPE(vocab, [("Ġ", "a"), ("Ġa", "b"), ("a", "b")]))
  made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  made.decoder = decoders.ByteLevel()
  return vocab, _save(made, folder, ["<|endoftext|>"])


def test_byte_level_bpe_of_others_keeps_its_ids(tmp_path):
  vocab, file = _gpt2(tmp_path)
  made = TextTokenizer.load(file)
  text = "ab ab b"
  names = ["ab", "Ġab", "Ġ", "b"]
  assert made.pieces(text) == [vocab[n] for n in names]
  assert made.bos_id == made.eos_id == 259
  assert (made.pad_id, made.mask_id, made.sep_id) == (260, 261, 262)
  assert made.appended == ("<pad>", "<mask>", "<sep>")
  assert made.vocab_size == 263 and made.token(261) == "<mask>"
  assert "<pad>, <mask>, <sep> appended" in made.describe()
  for exact in (" ab", "ab", "\u2581 \x00 \U0001f9ff naïve"):
    assert made.decode(made.encode(exact, 64)) == exact
  assert made.starts_word[vocab["Ġa"]] and not made.starts_word[vocab["ab"]]
  assert made.is_byte[vocab["Ã"]] and not made.is_byte[vocab["ab"]]
  assert _shown(made, "<|endoftext|>") == list("<|endoftext|>")


def _unigram(folder, byte_fallback=False):
  pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
  pieces += [("▁a", -2.1), ("b", -2.5), ("ab", -4.0), ("▁ab", -4.9)]
  pieces += [("a", -2.0), ("c", -6.0), (".", -3.0)]
  if byte_fallback:
    pieces += [(f"<0x{b:02X}>", -9.0) for b in range(256)]
  made = Tokenizer(models.Unigram(pieces, 2, byte_fallback=byte_fallback))
  made.pre_tokenizer = pre_tokenizers.Metaspace()
  steps = [decoders.Replace("▁", " "), decoders.ByteFallback()]
  steps += [decoders.Fuse(), decoders.Strip(" ", 1, 0)]
  made.decoder = decoders.Sequence(steps)
  return pieces, _save(made, folder, ["<pad>", "</s>", "<unk>"])


def _likeliest(text, pieces):
  """The best of all ways to cut a text into pieces."""
  if not text:
    return 0.0, []
  best = (-np.inf, [])
  for i, (piece, score) in enumerate(pieces):
    if piece and text.startswith(piece):
      rest, ids = _likeliest(text[len(piece) :], pieces)
      best = max(best, (score + rest, [i, *ids]))
  return best


@pytest.mark.parametrize("word", ["ab", "abab", "aabbc.", "cab", "b"])
def test_unigrams_agree_with_all_ways_to_cut(tmp_path, word):
  pieces, file = _unigram(tmp_path)
  made = TextTokenizer.load(file)
  _, best = _likeliest("▁" + word, pieces[3:])
  assert made.pieces(word) == [3 + i for i in best]


def test_unigrams_have_roles_words_and_unknown(tmp_path):
  pieces, file = _unigram(tmp_path)
  made = TextTokenizer.load(file)
  # T5 has no bos and no mask.
  assert (made.pad_id, made.eos_id, made.sep_id) == (0, 1, 1)
  assert (made.bos_id, made.mask_id) == (11, 12)
  ids = made.pieces("ab cab. 猫")
  starts = made.starts_word
  words = np.split(ids, np.flatnonzero(starts[ids])[1:])
  assert [made.decode(w) for w in words[:3]] == ["ab", "cab", "."]
  assert made.unknown_id == 2 and 2 in ids
  assert not made.content[2]


@pytest.mark.parametrize("text", ["猫 ab", "naïve\t\x00", "a  b \U0001f9ff"])
def test_byte_fallback_keeps_every_text(tmp_path, text):
  _, file = _unigram(tmp_path, byte_fallback=True)
  made = TextTokenizer.load(file)
  ids = made.pieces(text)
  assert made.decode(ids) == text and made.unknown_id not in ids
  # "<0x41>" is a byte; letters that the vocabulary has are not.
  byte = made.pieces("猫")[-1]
  assert made.is_byte[byte] and not made.is_byte[made.pieces("b")].any()
  assert made.token(byte) == "<AB>"  # U+732B is E7 8C AB.


def test_llama_style_bpe_falls_back_to_bytes(tmp_path):
  names = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256))]
  names += ["▁", "a", "▁a", "b"]
  vocab = {name: i for i, name in enumerate(names)}
  made = Tokenizer(
    models.BPE(vocab, [("▁", "a")], unk_token="<unk>", byte_fallback=True)
  )
  made.normalizer = normalizers.Sequence(
    [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
  )
  steps = [decoders.Replace("▁", " "), decoders.ByteFallback()]
  steps += [decoders.Fuse(), decoders.Strip(" ", 1, 0)]
  made.decoder = decoders.Sequence(steps)
  loaded = TextTokenizer.load(_save(made, tmp_path, ["<unk>", "<s>", "</s>"]))
  ids = loaded.pieces("ab é")
  assert ids == [vocab["▁a"], vocab["b"], vocab["▁"], 3 + 0xC3, 3 + 0xA9]
  assert loaded.decode(ids) == "ab é"
  assert (loaded.bos_id, loaded.eos_id, loaded.unknown_id) == (1, 2, 0)
  assert (loaded.pad_id, loaded.mask_id) == (263, 264)


def test_words_of_clip_end_where_it_marks_the_end(tmp_path):
  names = ["a", "b", "a</w>", "b</w>", "ab</w>"]
  names += ["<|startoftext|>", "<|endoftext|>"]
  vocab = {name: i for i, name in enumerate(names)}
  made = Tokenizer(
    models.BPE(vocab, [("a", "b</w>")], end_of_word_suffix="</w>")
  )
  made.pre_tokenizer = pre_tokenizers.Sequence(
    [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(False)]
  )
  made.decoder = decoders.ByteLevel()
  loaded = TextTokenizer.load(_save(made, tmp_path, names[5:]))
  ids = np.array(loaded.pieces("ab ba b"), np.int32)
  assert ids.tolist() == [4, 1, 2, 3]
  vocabulary = masks.Vocabulary(
    loaded.mask_id, loaded.content, loaded.starts_word, loaded.ends_word
  )
  assert masks.words(ids, vocabulary) == [[0], [1, 2], [3]]
  assert loaded.decode(ids) == "ab ba b"
  assert (loaded.bos_id, loaded.eos_id) == (5, 6)


def test_ids_that_stand_for_nothing_are_no_content(tmp_path):
  vocab = {"[PAD]": 0, "[UNK]": 1, "a": 4}
  made = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
  made.pre_tokenizer = pre_tokenizers.Whitespace()
  loaded = TextTokenizer.load(_save(made, tmp_path, ["[PAD]", "[UNK]"]))
  assert loaded.bos_id == 5 and loaded.vocab_size == 9
  assert np.flatnonzero(loaded.content).tolist() == [4]
  assert loaded.token(2) == "<2>"


def test_what_is_saved_reloads_alone_with_the_same_id(tmp_path):
  saved = tmp_path / "run.json"
  for file in (_vocab(tmp_path, BERT), _gpt2(tmp_path)[1]):
    made = TextTokenizer.load(file).with_chat()
    made.save(saved)
    again = TextTokenizer.load(saved)
    assert again.id == made.id == TextTokenizer.load(file).id
    assert again.chat == made.chat and again.special == made.special
    assert again.pieces("ab a") == made.pieces("ab a")


def test_truncation_and_padding_of_a_file_are_left_to_encode(tmp_path):
  _, file = _gpt2(tmp_path)
  plain = TextTokenizer.load(file)
  made = Tokenizer.from_file(str(file))
  made.enable_truncation(2)
  made.enable_padding(length=5)
  made.save(str(file))
  cut = TextTokenizer.load(file)
  assert cut.pieces("ab ab b") == plain.pieces("ab ab b")
  assert cut.id == plain.id


def test_the_file_may_say_the_roles_itself(tmp_path):
  _, file = _gpt2(tmp_path)
  content = json.loads(file.read_text())
  roles = {"pad": 259, "bos": 3, "eos": 4, "mask": 260, "sep": 5}
  content["special_tokens"] = roles
  made = TextTokenizer(json.dumps(content))
  assert (made.pad_id, made.mask_id, made.vocab_size) == (259, 260, 261)
  assert made.appended == ("<mask>",) and not made.content[3]
  for wrong, message in (
    ({**roles, "msk": 1}, "Did you mean 'mask'"),
    ({**roles, "eos": "x"}, "eos='x', expected an id below 260"),
    ({**roles, "mask": 262}, "without gaps"),
    ({**roles, "pad": 4}, "ids of their own"),
    ([], "expected an object"),
  ):
    content["special_tokens"] = wrong
    with pytest.raises(errors.UserError, match=message):
      TextTokenizer(json.dumps(content))


def test_a_folder_of_released_weights_is_read(tmp_path):
  _vocab(tmp_path, BERT)
  assert TextTokenizer.load(tmp_path).kind == "WordPiece"
  _gpt2(tmp_path)
  assert TextTokenizer.load(tmp_path).kind == "BPE"
  (tmp_path / "none").mkdir()
  with pytest.raises(errors.UserError, match="tokenizer.json, tokenizer.model"):
    TextTokenizer.load(tmp_path / "none")


@pytest.mark.parametrize(
  "name, content, message",
  [
    ("a.txt", b"just\ntexts\n", "Not a tokenizer. Expected a JSON file"),
    ("a.bin", b"\x80\x02pickle", "a model of SentencePiece, a BERT vocab.txt"),
    ("a.json", b"{\xff", "Not a JSON file"),
    ("a.json", b'{"a": 1}', "Not a tokenizer file"),
    ("a.json", b"[1]", "Not a tokenizer"),
    ("a.json", b'{"sentencepiece": "?"}', "not base64"),
    ("vocab.txt", b"[UNK]\na\na\n", "the entry 'a' twice"),
    ("empty", b"", "Not a tokenizer"),
  ],
)
def test_other_files_are_refused(tmp_path, name, content, message):
  (tmp_path / name).write_bytes(content)
  with pytest.raises(errors.UserError, match=message) as e:
    TextTokenizer.load(tmp_path / name)
  assert str(tmp_path / name) in str(e.value)


def test_word_piece_has_the_id_of_each_line():
  text = tokenizer_files.word_piece(BERT, lowercase=True)
  vocab = json.loads(text)["model"]["vocab"]
  assert [vocab[entry] for entry in BERT] == list(range(len(BERT)))


def test_fit_counts_unknown_tokens_and_bytes(tmp_path):
  fit = Fit()
  word_piece = TextTokenizer.load(_vocab(tmp_path, BERT))
  assert fit.add("a 猫 unaffable", word_piece) == 5
  assert (fit.bytes, fit.tokens, fit.unknown, fit.single) == (15, 5, 1, 0)
  fit = Fit()
  _, file = _unigram(tmp_path, byte_fallback=True)
  fit.add("ab 猫", TextTokenizer.load(file))  # ▁, ab or alike; ▁; 3 bytes.
  assert (fit.unknown, fit.single) == (0, 3)
  assert "0 % unknown" in fit.describe()


@pytest.mark.parametrize("strategy", masks.TEXT_STRATEGIES)
def test_only_content_is_hidden_and_drawn(tmp_path, strategy):
  made = TextTokenizer.load(_vocab(tmp_path, BERT))
  hide = text.MaskText(
    tokenizer=made, max_tokens=16, rate=0.5, strategy=strategy
  )
  ids = made.encode("unaffable 猫, a able!", 16)
  special = {0, 2, 3, 4, 5}
  may_hide = {i for i, t in enumerate(ids.tolist()) if t not in special}
  hidden, drawn = set(), set()
  for seed in range(200):
    out = hide({"text": ids}, np.random.default_rng(seed), train=True)
    where = out["text_hidden"][out["text_hidden_mask"]].tolist()
    hidden.update(where)
    drawn.update(out["text_masked"][where].tolist())
    rest = np.setdiff1d(np.arange(16), where)
    np.testing.assert_array_equal(out["text_masked"][rest], ids[rest])
  assert hidden == may_hide
  assert made.mask_id in drawn and drawn & special == {made.mask_id}
  assert drawn - {made.mask_id} == set(range(len(BERT))) - special
