"""What reads a vocabulary: the libraries behind `TextTokenizer`.

One for the JSON files of Hugging Face `tokenizers`, which mmjax writes too, one
for the models of SentencePiece. Both say of each id what it stands for, in
bytes, with a space in front where it starts a word.
"""

import base64
import binascii
import functools
import json
import re
import string
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import tokenizers
from tokenizers import decoders

from mmjax.core import errors
from mmjax.data import special_tokens

SENTENCEPIECE = "sentencepiece"  # Of a file: the model, in base64.
SPACE = "▁"  # What SentencePiece writes for a space.
BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")  # A byte that is a token.
WORD_STARTS = frozenset(
  c.encode() for c in string.punctuation + string.whitespace
)


@runtime_checkable
class Backend(Protocol):
  """Texts to ids and back, with the ids of the file."""

  kind: str  # For people: "BPE", "WordPiece", ...
  size: int  # Ids end there.
  special: frozenset[int]  # Ids that are no content.
  roles: special_tokens.SpecialTokens
  unknown_id: int | None

  def encode(self, text: str) -> list[int]: ...

  def decode(self, ids: Sequence[int]) -> str: ...

  def name(self, token_id: int) -> str | None:
    """As it stands in the vocabulary; None for an id that is not used."""

  def content(self, token_id: int) -> bytes:
    """What it stands for; a space in front where it starts a word."""

  def starts_word(self, token_id: int) -> bool: ...

  def ends_word(self, token_id: int) -> bool: ...

  def is_byte(self, token_id: int) -> bool:
    """Whether it is a piece of a character, or stands for one byte."""


class JsonBackend:
  """A file of the library `tokenizers`."""

  def __init__(self, content: Mapping[str, Any]):
    """Takes the JSON object of the file.

    Raises:
      UserError: a kind of model that is not known.
      Exception: whatever the library raises for what is wrong otherwise.
    """
    self._tokenizer = tokenizers.Tokenizer.from_str(json.dumps(content))
    # "<mask>" in a text is six characters, not the special token.
    self._tokenizer.encode_special_tokens = True
    self.kind = type(self._tokenizer.model).__name__
    model = content["model"]
    parts = [content.get(n) for n in ("normalizer", "pre_tokenizer", "decoder")]
    kinds = {part.get("type") for part in _parts(parts)}
    self._bytes = "ByteLevel" in kinds
    self._spaced = any(
      part.get("add_prefix_space")
      for part in _parts(content.get("pre_tokenizer"))
      if part.get("type") == "ByteLevel"
    )
    self._prefix = None
    if self.kind in ("WordPiece", "WordLevel"):
      self._prefix = model.get("continuing_subword_prefix") or "\0"
    self._suffix = model.get("end_of_word_suffix") or ""
    if content.get("decoder") is None and self.kind == "WordPiece":
      self._tokenizer.decoder = decoders.WordPiece(self._prefix)
    vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
    self.size = max(vocabulary.values(), default=-1) + 1
    marked = {
      token.content: i
      for i, token in self._tokenizer.get_added_tokens_decoder().items()
      if token.special
    }
    lookup = (marked or vocabulary).get
    self.unknown_id = self._unknown(model, vocabulary)
    self.roles = special_tokens.find(lookup, self.size)
    unknown = {self.unknown_id} - {None}
    self.special = frozenset(marked.values()) | unknown

  @staticmethod
  def _unknown(model, vocabulary):
    if isinstance(model.get("unk_id"), int):
      return model["unk_id"]
    return vocabulary.get(model.get("unk_token"))

  def encode(self, text: str) -> list[int]:
    return self._tokenizer.encode(text, add_special_tokens=False).ids

  def decode(self, ids: Sequence[int]) -> str:
    text = self._tokenizer.decode(ids, skip_special_tokens=False)
    if self._suffix:
      text = text.replace(self._suffix, " ").rstrip(" ")
    return text.removeprefix(" ") if self._spaced else text

  def name(self, token_id: int) -> str | None:
    return self._tokenizer.id_to_token(token_id)

  def content(self, token_id: int) -> bytes:
    name = self._piece(token_id)
    if self._bytes and all(c in byte_of() for c in name):
      return bytes(byte_of()[c] for c in name)
    if self._prefix is not None:
      rest = name.removeprefix(self._prefix)
      apart = rest != name or rest[:1] in string.punctuation
      return (rest if apart else " " + rest).encode()
    return _sentence_piece(name)

  def _piece(self, token_id: int) -> str:
    return (self.name(token_id) or "").removesuffix(self._suffix)

  def starts_word(self, token_id: int) -> bool:
    if self._prefix is not None:
      return not (self.name(token_id) or "").startswith(self._prefix)
    return self.content(token_id)[:1] in WORD_STARTS

  def ends_word(self, token_id: int) -> bool:
    return bool(self._suffix) and (self.name(token_id) or "").endswith(
      self._suffix
    )

  def is_byte(self, token_id: int) -> bool:
    if not self._bytes:
      return bool(BYTE.fullmatch(self.name(token_id) or ""))
    return not _is_text(self.content(token_id))


class SentencePieceBackend:
  """A model of SentencePiece; needs the package of this name."""

  def __init__(self, model: bytes):
    """Takes the bytes of the `.model` file.

    Raises:
      UserError: not such a model, or the package is missing.
    """
    try:
      import sentencepiece
    except ImportError as e:
      raise errors.UserError(
        "A model of SentencePiece needs its package: pip install "
        "'mmjax[sentencepiece]'."
      ) from e
    self._model = sentencepiece.SentencePieceProcessor()
    try:
      self._model.LoadFromSerializedProto(model)
      self.size = self._model.GetPieceSize()
    except Exception as e:  # The library raises RuntimeError and others.
      raise errors.UserError(f"Not a model of SentencePiece: {e}") from e
    m, ids = self._model, range(self.size)
    self.kind = SENTENCEPIECE
    self.unknown_id = m.unk_id() if m.unk_id() >= 0 else None
    names = {m.IdToPiece(i): i for i in ids}
    known = {"pad": m.pad_id(), "bos": m.bos_id(), "eos": m.eos_id()}
    self.roles = special_tokens.find(
      names.get, self.size, {role: i for role, i in known.items() if i >= 0}
    )
    self.special = frozenset(
      i for i in ids if m.IsControl(i) or m.IsUnknown(i) or m.IsUnused(i)
    )

  def encode(self, text: str) -> list[int]:
    return self._model.EncodeAsIds(text)

  def decode(self, ids: Sequence[int]) -> str:
    return self._model.DecodeIds(list(ids))

  def name(self, token_id: int) -> str | None:
    return self._model.IdToPiece(token_id)

  def content(self, token_id: int) -> bytes:
    return _sentence_piece(self._model.IdToPiece(token_id))

  def starts_word(self, token_id: int) -> bool:
    return self.content(token_id)[:1] in WORD_STARTS

  def ends_word(self, token_id: int) -> bool:
    del token_id
    return False

  def is_byte(self, token_id: int) -> bool:
    return self._model.IsByte(token_id)


def open_backend(content: Mapping[str, Any]) -> Backend:
  """Opens the JSON object of a tokenizer file.

  Raises:
    UserError: not a model of SentencePiece.
    Exception: whatever the library raises for what is wrong otherwise.
  """
  if SENTENCEPIECE not in content:
    return JsonBackend(content)
  try:
    model = base64.b64decode(content[SENTENCEPIECE], validate=True)
  except (TypeError, binascii.Error) as e:
    raise errors.UserError(f"{SENTENCEPIECE}: not base64: {e}") from e
  return SentencePieceBackend(model)


def _sentence_piece(name: str) -> bytes:
  byte = BYTE.fullmatch(name)
  if byte:
    return bytes([int(byte[1], 16)])
  return name.replace(SPACE, " ").encode()


def _parts(value: Any) -> Iterator[Mapping[str, Any]]:
  """All objects within a part of the file, sequences of them included."""
  if isinstance(value, Mapping):
    yield value
    value = list(value.values())
  if isinstance(value, list):
    for item in value:
      yield from _parts(item)


def _is_text(content: bytes) -> bool:
  try:
    content.decode("utf-8")
  except UnicodeDecodeError:
    return False
  return True


@functools.cache
def byte_of() -> dict[str, int]:
  """The printable stand-ins of bytes in byte-level vocabularies.

  Printable Latin-1 characters stand for themselves, the other bytes for 256,
  257, ... in order.
  """
  printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
  others = [b for b in range(256) if b not in printable]
  table = {chr(b): b for b in printable}
  table.update({chr(256 + i): b for i, b in enumerate(others)})
  return table
