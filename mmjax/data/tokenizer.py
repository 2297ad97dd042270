"""Text <-> ids: byte-level BPE, so that no text in any language is unknown.

Source: Sennrich et al. 2016 (arXiv:1508.07909) on bytes as in Radford et al.
2019 (GPT-2), by the `tokenizers` library. Case is kept. Each text is read as
if a space stood before it, so that a word has the same tokens anywhere.
"""

import dataclasses
import functools
import hashlib
import json
import string
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from jaxtyping import Bool, Int
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from mmjax.core import errors
from mmjax.data import chat as chat_lib
from mmjax.data import starter

# Ids 0 to 4; their names cannot be typed into a text by accident or on purpose.
SPECIAL_TOKENS = ("<pad>", "<bos>", "<eos>", "<mask>", "<sep>")
PAD, BOS, EOS, MASK, SEP = range(len(SPECIAL_TOKENS))
STARTER = "starter"
STARTER_VOCAB_SIZE = 2048
MIN_VOCAB_SIZE = len(SPECIAL_TOKENS) + 256  # Special tokens and all bytes.
CHAT = "chat_template"  # Of a file: what turns of each role begin with.


class TextTokenizer:
  """Encodes texts to a fixed number of ids and back.

  Equal files give equal `id`s, whatever the version of the library.
  """

  pad_id, bos_id, eos_id, mask_id, sep_id = PAD, BOS, EOS, MASK, SEP
  num_special = len(SPECIAL_TOKENS)  # Ids below are never content.

  def __init__(self, text: str):
    """Takes the JSON text of a tokenizer file; see also `load`.

    Raises:
      UserError: not a tokenizer of this kind.
    """
    self.chat: chat_lib.ChatTemplate | None = None
    try:
      content = json.loads(text)
      if CHAT in content:
        self.chat = chat_lib.read_template(content.pop(CHAT))
      self._json = _canonical(content)
      self._tokenizer = tokenizers.Tokenizer.from_str(self._json)
    except Exception as e:  # The library raises bare Exceptions.
      raise errors.UserError(f"Not a tokenizer file: {e}") from e
    got = tuple(self._tokenizer.id_to_token(i) for i in range(self.num_special))
    if got != SPECIAL_TOKENS:
      raise errors.UserError(
        f"Not a tokenizer of mmjax: its first tokens are {got}, expected "
        f"{SPECIAL_TOKENS}. Train one with TextTokenizer.train."
      )
    # "<mask>" in a text is six characters, not the special token.
    self._tokenizer.encode_special_tokens = True

  @classmethod
  def train(cls, texts: Iterable[str], vocab_size: int) -> "TextTokenizer":
    """Learns merges from texts; the same texts give the same tokenizer.

    Raises:
      UserError: `vocab_size` does not hold the bytes and special tokens.
    """
    if vocab_size < MIN_VOCAB_SIZE:
      raise errors.UserError(
        f"vocab_size={vocab_size}, expected at least {MIN_VOCAB_SIZE}: "
        f"{len(SPECIAL_TOKENS)} special tokens and 256 bytes."
      )
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
      vocab_size=vocab_size,
      special_tokens=list(SPECIAL_TOKENS),
      initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
      show_progress=False,
    )
    tokenizer.train_from_iterator(iter(texts), trainer=trainer)
    return cls(tokenizer.to_str())

  @classmethod
  def load(cls, path: str | Path) -> "TextTokenizer":
    """Reads a tokenizer file; "starter" is the one that ships with mmjax.

    Raises:
      UserError: no such file, or not a tokenizer.
    """
    if path == STARTER:
      return _starter()
    file = Path(path).expanduser()
    try:
      text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
      raise errors.UserError(
        f"No tokenizer at {str(file)!r} ({e}). Expected a JSON file written "
        f"by TextTokenizer.save, or the word {STARTER!r}."
      ) from e
    try:
      return cls(text)
    except errors.UserError as e:
      raise errors.UserError(f"{str(file)!r}: {e}") from e

  def save(self, path: str | Path) -> None:
    Path(path).write_text(self._text + "\n", encoding="utf-8")

  def with_chat(
    self, template: chat_lib.ChatTemplate | None = None
  ) -> "TextTokenizer":
    """This tokenizer with a chat template in its file.

    By default its own, or, if it has none, the words of `ChatTemplate`.
    """
    made = TextTokenizer(self._json)
    made.chat = template or self.chat or chat_lib.ChatTemplate()
    return made

  @property
  def _text(self) -> str:
    if self.chat is None:
      return self._json
    template = dataclasses.asdict(self.chat)
    return _canonical({**json.loads(self._json), CHAT: template})

  @property
  def vocab_size(self) -> int:
    return self._tokenizer.get_vocab_size()

  @functools.cached_property
  def id(self) -> str:
    """A hash of the content: models only fit the tokenizer they know.

    Of the chat template nothing: it is made of the same tokens.
    """
    return hashlib.sha256(self._json.encode()).hexdigest()[:12]

  @functools.cached_property
  def starts_word(self) -> Bool[np.ndarray, " v"]:
    """By id: True for a token that begins with a space or punctuation.

    So words are what stands between spaces, and punctuation is apart. In
    languages without spaces, that is all between two marks.
    """
    firsts = frozenset(string.punctuation.encode() + string.whitespace.encode())
    starts = np.zeros(self.vocab_size, bool)
    for i in range(self.num_special, self.vocab_size):
      first = self._tokenizer.id_to_token(i)[0]
      starts[i] = _byte_of()[first] in firsts
    return starts

  def pieces(self, text: str) -> list[int]:
    """Encodes a text of any length, without special tokens."""
    return self._tokenizer.encode(text, add_special_tokens=False).ids

  def num_tokens(self, text: str) -> int:
    """Counts the ids of a whole text, bos and eos included."""
    return len(self.pieces(text)) + 2

  def encode(self, text: str, max_tokens: int) -> Int[np.ndarray, " t"]:
    """Encodes to `[bos, ..., eos]`, padded or cut to `max_tokens`.

    The eos is kept when the text is cut.
    """
    if max_tokens < 2:
      raise errors.UserError(
        f"max_tokens={max_tokens}, expected at least 2: bos and eos."
      )
    ids = self.pieces(text)[: max_tokens - 2]
    out = np.full(max_tokens, PAD, np.int32)
    out[0] = BOS
    out[1 : len(ids) + 1] = ids
    out[len(ids) + 1] = EOS
    return out

  def decode(self, ids: Iterable[Any]) -> str:
    """Returns the text of ids; special tokens are left out."""
    content = [int(i) for i in ids if int(i) >= self.num_special]
    text = self._tokenizer.decode(content, skip_special_tokens=False)
    return text.removeprefix(" ")

  def token(self, token_id: int) -> str:
    """Returns one token for people to read.

    A token that starts a word begins with a space; a piece of a character is
    shown as its bytes, e.g. "<E4><BD>".

    Raises:
      UserError: no such id.
    """
    token_id = int(token_id)
    if not 0 <= token_id < self.vocab_size:
      raise errors.UserError(
        f"Token {token_id} is outside the vocabulary of {self.vocab_size}."
      )
    if token_id < self.num_special:
      return SPECIAL_TOKENS[token_id]
    content = bytes(
      _byte_of()[c] for c in self._tokenizer.id_to_token(token_id)
    )
    try:
      return content.decode("utf-8")
    except UnicodeDecodeError:
      return "".join(_readable(content))


def _readable(content: bytes) -> Iterator[str]:
  # One character at a time: whole ones as they are, pieces as bytes.
  while content:
    for size in range(1, 5):
      try:
        yield content[:size].decode("utf-8")
      except UnicodeDecodeError:
        continue
      content = content[size:]
      break
    else:
      yield f"<{content[0]:02X}>"
      content = content[1:]


@functools.cache
def _byte_of() -> dict[str, int]:
  # The printable stand-ins of byte-level BPE: printable Latin-1 characters
  # stand for themselves, the other bytes for 256, 257, ... in order.
  printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
  others = [b for b in range(256) if b not in printable]
  table = {chr(b): b for b in printable}
  table.update({chr(256 + i): b for i, b in enumerate(others)})
  return table


@functools.cache
def _starter() -> TextTokenizer:
  return TextTokenizer(starter.tokenizer_path().read_text(encoding="utf-8"))


def train_starter() -> TextTokenizer:
  """Trains the tokenizer that ships as `starter/tokenizer.json`."""
  return TextTokenizer.train(starter.texts(), STARTER_VOCAB_SIZE)


def _canonical(content: Any) -> str:
  return json.dumps(
    content, sort_keys=True, ensure_ascii=False, separators=(",", ":")
  )
