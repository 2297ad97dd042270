"""Text <-> ids, with a vocabulary that was trained here or comes from others.

Those that mmjax trains (`tokenizer_train`) work on bytes: no text in any
language is unknown. Case is kept. Each text is read as if a space stood before
it, so that a word has the same tokens anywhere. Those of others
(`tokenizer_files`) do what they do; their ids stay as they are, so that
released weights fit.
"""

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from mmjax.core import errors, folders
from mmjax.data import chat as chat_lib
from mmjax.data import (
  special_tokens,
  starter,
  tokenizer_backends,
  tokenizer_files,
  tokenizer_train,
)

# Of a text, for each token that is wanted: far more than any token has.
MOST_CHARACTERS = 512
STARTER = "starter"
STARTER_VOCAB_SIZE = 2048
CHAT = "chat_template"  # Of a file: what turns of each role begin with.
ROLES = "special_tokens"  # Of a file: the id of each role; see `SpecialTokens`.
LAYOUT = "layout"  # Of a file: see `TextTokenizer.laid_out`.
STANDARD = {"bos": True, "fill": "pad"}
FILLS = ("pad", "eos")


class TextTokenizer:
  """Encodes texts to a fixed number of ids and back.

  Equal files give equal `id`s, whatever the version of the library.
  """

  def __init__(self, text: str):
    """Takes the JSON text of a tokenizer file; see also `load`.

    Raises:
      UserError: not a tokenizer.
    """
    self.chat: chat_lib.ChatTemplate | None = None
    try:
      content = json.loads(text)
      if CHAT in content:
        self.chat = chat_lib.read_template(content.pop(CHAT))
      roles = content.pop(ROLES, None)
      layout = {**STANDARD, **content.pop(LAYOUT, {})}
      for name in ("truncation", "padding"):  # `encode` does both.
        if name in content:
          content[name] = None
      self._backend = tokenizer_backends.open_backend(content)
      self.special = self._backend.roles
      if roles is not None:
        self.special = special_tokens.read(roles, self._backend.size)
    except errors.UserError:
      raise
    except Exception as e:  # The library raises bare Exceptions.
      raise errors.UserError(f"Not a tokenizer file: {e}") from e
    if self.special != special_tokens.OWN:
      content[ROLES] = dataclasses.asdict(self.special)
    if layout != STANDARD:
      content[LAYOUT] = layout
    self._json = _canonical(content)
    roles = dataclasses.astuple(self.special)
    self.pad_id, self.bos_id, self.eos_id, self.mask_id, self.sep_id = roles
    self._with_bos = layout["bos"]
    self._fill_id = self.eos_id if layout["fill"] == "eos" else self.pad_id
    self._roles = frozenset(roles)
    self.vocab_size = max(self._backend.size, *(i + 1 for i in self._roles))

  def __reduce__(self):
    return TextTokenizer, (self._text,)

  @classmethod
  def train(
    cls, texts: Iterable[str], vocab_size: int, kind: str = "bpe"
  ) -> "TextTokenizer":
    """Learns from texts; the same texts give the same tokenizer.

    Raises:
      UserError: `vocab_size` does not hold the bytes and special tokens, or
        an unknown kind; see `tokenizer_train.KINDS`.
    """
    return cls(tokenizer_train.train(texts, vocab_size, kind))

  @classmethod
  def load(cls, path: str | Path) -> "TextTokenizer":
    """Reads a tokenizer file; "starter" is the one that ships with mmjax.

    Raises:
      UserError: no such file, or not a tokenizer; see `tokenizer_files.READ`.
    """
    if path == STARTER:
      return _starter()
    file = folders.file(os.fspath(path))
    try:
      text = tokenizer_files.read(tokenizer_files.find(file))
      return cls(text)
    except OSError as e:
      raise errors.UserError(
        f"No tokenizer at {str(file)!r} ({e}). Expected "
        f"{tokenizer_files.READ}, or the word {STARTER!r}."
      ) from e
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

  def laid_out(self, *, bos: bool, fill: str = "pad") -> "TextTokenizer":
    """This tokenizer with texts of another layout, which its file says.

    Args:
      bos: whether a text begins with bos.
      fill: what follows its eos: "pad", which does not count as text, or "eos"
        again and again, which does.

    Raises:
      UserError: unknown `fill`.
    """
    if fill not in FILLS:
      raise errors.unknown("fill", fill, FILLS)
    content = {**json.loads(self._text), LAYOUT: dict(bos=bos, fill=fill)}
    return TextTokenizer(_canonical(content))

  @property
  def _text(self) -> str:
    if self.chat is None:
      return self._json
    template = dataclasses.asdict(self.chat)
    return _canonical({**json.loads(self._json), CHAT: template})

  @property
  def kind(self) -> str:
    """Of the vocabulary, for people: "BPE", "WordPiece", "sentencepiece"..."""
    return self._backend.kind

  @property
  def unknown_id(self) -> int | None:
    """What stands for a text that the vocabulary lacks; None if none can."""
    return self._backend.unknown_id

  @property
  def appended(self) -> tuple[str, ...]:
    """Special tokens that the file lacks: the last ids, in this order."""
    ids = {i: role for role, i in dataclasses.asdict(self.special).items()}
    return tuple(f"<{ids[i]}>" for i in sorted(ids) if i >= self._backend.size)

  def describe(self) -> str:
    """Kind, size and id, and what the file lacked."""
    said = f"{self.kind}, {self.vocab_size:,} tokens, id {self.id}"
    if self.appended:
      said += f", with {', '.join(self.appended)} appended"
    return said

  @functools.cached_property
  def id(self) -> str:
    """A hash of the content: models only fit the tokenizer they know.

    Of the chat template nothing: it is made of the same tokens.
    """
    return hashlib.sha256(self._json.encode()).hexdigest()[:12]

  @functools.cached_property
  def content(self) -> Bool[np.ndarray, " v"]:
    """By id: False for special tokens and for ids that stand for nothing."""
    out = np.zeros(self.vocab_size, bool)
    special = self._roles | self._backend.special
    for i in range(self._backend.size):
      out[i] = i not in special and self._backend.name(i) is not None
    return out

  @functools.cached_property
  def _known(self) -> frozenset[int]:
    return frozenset(np.flatnonzero(self.content).tolist())

  @functools.cached_property
  def starts_word(self) -> Bool[np.ndarray, " v"]:
    """By id: True for a token that begins with a space or punctuation.

    So words are what stands between spaces, and punctuation is apart. In
    languages without spaces, that is all between two marks. In WordPiece, what
    is no continuation: there, Chinese characters are words.
    """
    return self._by_id(self._backend.starts_word)

  @functools.cached_property
  def ends_word(self) -> Bool[np.ndarray, " v"]:
    """By id: True where the vocabulary marks ends of words, as CLIP's does."""
    return self._by_id(self._backend.ends_word)

  @functools.cached_property
  def is_byte(self) -> Bool[np.ndarray, " v"]:
    """By id: True for a single byte, or for a piece of a character."""
    return self._by_id(self._backend.is_byte)

  def _by_id(self, ask) -> Bool[np.ndarray, " v"]:
    out = np.zeros(self.vocab_size, bool)
    for i in np.flatnonzero(self.content).tolist():
      out[i] = ask(i)
    return out

  def pieces(self, text: str) -> list[int]:
    """Encodes a text of any length, without special tokens.

    Whoever types the name of one gets its letters, or, from vocabularies that
    make the token of it, nothing.
    """
    ids = self._backend.encode(text)
    if self._roles.isdisjoint(ids):
      return ids
    return [i for i in ids if i not in self._roles]

  def num_tokens(self, text: str) -> int:
    """Counts the ids of a whole text, bos and eos included."""
    return len(self.pieces(text)) + 1 + self._with_bos

  def encode(self, text: str, max_tokens: int) -> Int[np.ndarray, " t"]:
    """Encodes to `[bos, ..., eos]`, padded or cut to `max_tokens`.

    Or as `laid_out` says. The eos is kept when the text is cut. Of a text of
    megabytes only the beginning is looked at.
    """
    if max_tokens < 2:
      raise errors.UserError(
        f"max_tokens={max_tokens}, expected at least 2: bos and eos."
      )
    first = [self.bos_id] if self._with_bos else []
    room = max_tokens - len(first) - 1
    ids = self.pieces(text[: MOST_CHARACTERS * max_tokens])[:room]
    out = np.full(max_tokens, self._fill_id, np.int32)
    out[: len(first) + len(ids) + 1] = [*first, *ids, self.eos_id]
    return out

  def decode(self, ids: Iterable[Any]) -> str:
    """Returns the text of ids; special tokens are left out."""
    known = self._known
    return self._backend.decode([i for i in map(int, ids) if i in known])

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
    if not self.content[token_id]:
      return self._special_name(token_id)
    return "".join(_readable(self._backend.content(token_id)))

  def _special_name(self, token_id: int) -> str:
    name = None
    if token_id < self._backend.size:
      name = self._backend.name(token_id)
    roles = {i: role for role, i in dataclasses.asdict(self.special).items()}
    return name or f"<{roles.get(token_id, token_id)}>"


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
def _starter() -> TextTokenizer:
  return TextTokenizer(starter.tokenizer_path().read_text(encoding="utf-8"))


def train_starter() -> TextTokenizer:
  """Trains the tokenizer that ships as `starter/tokenizer.json`."""
  return TextTokenizer.train(starter.texts(), STARTER_VOCAB_SIZE)


def _canonical(content: Any) -> str:
  return json.dumps(
    content, sort_keys=True, ensure_ascii=False, separators=(",", ":")
  )
