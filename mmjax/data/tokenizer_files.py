"""Tokenizer files of others -> the one JSON text of `TextTokenizer`.

Read are `tokenizer.json` (Hugging Face `tokenizers`), models of SentencePiece
and the `vocab.txt` of BERT. Nothing is unpickled, nothing comes from a network.
"""

import base64
import json
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from mmjax.core import errors
from mmjax.data import special_tokens
from mmjax.data.tokenizer_backends import SENTENCEPIECE

# What a folder of released weights may hold, the best first.
IN_FOLDER = (
  "tokenizer.json",
  "tokenizer.model",
  "spiece.model",
  "sentencepiece.bpe.model",
  "vocab.txt",
)
READ = (
  "a JSON file (written by mmjax or by Hugging Face `tokenizers`), a model of "
  "SentencePiece, a BERT vocab.txt, or a folder with one of "
  f"{', '.join(IN_FOLDER)}"
)
CONTINUES = "##"  # Begins a piece of WordPiece that goes on with a word.


def find(path: Path) -> Path:
  """The file itself; of a folder, the first of `IN_FOLDER`.

  Raises:
    UserError: a folder without any of them.
  """
  if not path.is_dir():
    return path
  for name in IN_FOLDER:
    if (path / name).is_file():
      return path / name
  raise errors.UserError(f"No tokenizer in {str(path)!r}. Expected {READ}.")


def read(file: Path) -> str:
  """The JSON text of a file of any kind.

  Raises:
    UserError: none of these.
  """
  content = file.read_bytes()
  if content.lstrip()[:1] == b"{":
    try:
      return content.decode("utf-8")
    except UnicodeDecodeError as e:
      raise errors.UserError(f"Not a JSON file: {e}") from e
  # How the protocol buffer of SentencePiece begins: with a piece.
  if content[:1] == b"\n" and file.suffix != ".txt":
    return json.dumps({SENTENCEPIECE: base64.b64encode(content).decode()})
  entries = _lines(content)
  if "[UNK]" in entries:
    return word_piece(entries, **_casing(file.parent, entries))
  raise errors.UserError(f"Not a tokenizer. Expected {READ}.")


def word_piece(
  entries: list[str], *, lowercase: bool, strip_accents: bool | None = None
) -> str:
  """The JSON text of BERT's WordPiece; each entry has the id of its line.

  Source: Devlin et al. 2019 (arXiv:1810.04805), released code.

  Raises:
    UserError: an entry that comes twice.
  """
  vocabulary = {entry: i for i, entry in enumerate(entries)}
  if len(vocabulary) < len(entries):
    twice = next(e for i, e in enumerate(entries) if vocabulary[e] != i)
    raise errors.UserError(f"vocab.txt has the entry {twice!r} twice.")
  made = tokenizers.Tokenizer(
    models.WordPiece(
      vocabulary, unk_token="[UNK]", continuing_subword_prefix=CONTINUES
    )
  )
  made.normalizer = normalizers.BertNormalizer(
    lowercase=lowercase, strip_accents=strip_accents
  )
  made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
  made.decoder = decoders.WordPiece(CONTINUES)
  names = {
    name for several in special_tokens.NAMES.values() for name in several
  }
  names.update(special_tokens.UNKNOWN)
  made.add_special_tokens([entry for entry in entries if entry in names])
  return made.to_str()


def _lines(content: bytes) -> list[str]:
  try:
    lines = content.decode("utf-8").split("\n")
  except UnicodeDecodeError:
    return []
  lines = [line.removesuffix("\r") for line in lines]
  return lines[:-1] if lines[-1] == "" else lines


def _casing(folder: Path, entries: list[str]) -> dict[str, Any]:
  """Whether letters are made small, and accents taken away.

  As tokenizer_config.json beside the file says; without one, what has entries
  with capital letters keeps case.
  """
  file = folder / "tokenizer_config.json"
  said: Any = {}
  if file.is_file():
    try:
      said = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as e:
      raise errors.UserError(f"{str(file)!r} is no JSON: {e}") from e
  words = (e for e in entries if not (e[:1] == "[" and e[-1:] == "]"))
  lower = said.get("do_lower_case") if isinstance(said, dict) else None
  if lower is None:
    lower = all(word == word.lower() for word in words)
    return {"lowercase": lower}
  return {"lowercase": bool(lower), "strip_accents": said.get("strip_accents")}
