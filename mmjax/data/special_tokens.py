"""Which ids stand for padding, beginning, end, hidden and separator.

Every tokenizer has all five, so that every objective works with every
tokenizer. Released ones name them as they like, and lack some; what is missing
is appended at the end of the vocabulary, so that their own ids stay.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mmjax.core import errors

# Role -> its names, the first that a vocabulary has. What SEP is in BERT, </s>
# is in RoBERTa: the end of a text and what stands between two.
NAMES = {
  "pad": ("<pad>", "[PAD]", "<|pad|>", "<|padding|>"),
  "bos": (
    "<bos>",
    "[CLS]",
    "<s>",
    "[BOS]",
    "<cls>",
    "<|startoftext|>",
    "<|begin_of_text|>",
    "<|startoftranscript|>",
    "<|endoftext|>",
  ),
  "eos": (
    "<eos>",
    "[SEP]",
    "</s>",
    "[EOS]",
    "<|endoftext|>",
    "<|end_of_text|>",
  ),
  "mask": ("<mask>", "[MASK]", "<|mask|>"),
  "sep": ("<sep>", "[SEP]", "</s>", "<|sep|>"),
}
UNKNOWN = ("<unk>", "[UNK]", "<|unk|>")


@dataclass(frozen=True)
class SpecialTokens:
  """An id for each role. Padding and hidden are nothing else besides."""

  pad: int
  bos: int
  eos: int
  mask: int
  sep: int


# Of the tokenizers that mmjax trains.
OWN = SpecialTokens(0, 1, 2, 3, 4)


def find(
  lookup: Callable[[str], int | None],
  size: int,
  known: Mapping[str, int] | None = None,
) -> SpecialTokens:
  """Finds each role by its usual names; appends what is missing.

  Args:
    lookup: name -> id, if the vocabulary has it as a special token.
    size: ids of the vocabulary end there; the first that is appended.
    known: role -> id, where the file itself says so.
  """
  found: dict[str, int] = {}
  for role, names in NAMES.items():
    ids = [i for i in map(lookup, names) if i is not None]
    found[role] = (known or {}).get(role, ids[0] if ids else -1)
  # A text ends where its padding begins: one id can't say both.
  if found["pad"] in (found["bos"], found["eos"], found["mask"]):
    found["pad"] = -1
  for role in [role for role in NAMES if found[role] < 0]:
    found[role] = size
    size += 1
  return SpecialTokens(**found)


def read(section: Any, size: int) -> SpecialTokens:
  """The section of a file that says the id of each role.

  Args:
    section: as it stands in the file.
    size: of the vocabulary, without what is appended.

  Raises:
    UserError: a wrong section.
  """
  if not isinstance(section, Mapping):
    raise errors.UserError(f"special_tokens={section!r}, expected an object.")
  for role in section:
    if role not in NAMES:
      raise errors.unknown("role in special_tokens", role, NAMES)
  for role in NAMES:
    value = section.get(role)
    if type(value) is not int or not 0 <= value < size + len(NAMES):
      raise errors.UserError(
        f"special_tokens: {role}={value!r}, expected an id below {size}, or "
        "one of the next that are appended."
      )
  made = SpecialTokens(**section)
  appended = sorted({i for i in section.values() if i >= size})
  if appended != list(range(size, size + len(appended))):
    raise errors.UserError(
      f"special_tokens: {appended} are appended, expected {size}, {size + 1}, "
      "... without gaps."
    )
  rest = (made.bos, made.eos, made.sep)
  if made.pad in (*rest, made.mask) or made.mask in rest:
    raise errors.UserError(
      f"special_tokens={dict(section)}: 'pad' and 'mask' need ids of their own."
    )
  return made
