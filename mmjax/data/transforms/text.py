"""Words: compose a caption, turn it into ids; hide tokens."""

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmjax.core import errors
from mmjax.core.batch import FieldSpec
from mmjax.data import masks
from mmjax.data.tokenizer import TextTokenizer

SEPARATOR = ", "


@dataclass(frozen=True, kw_only=True)
class Caption:
  """Composes `label, tag, tag` from `label_<language>` and `tags_<language>`.

  In training, one of the languages, and each tag with probability `tag_rate`,
  in random order; else the first language with all tags in order. A source
  may lack the tags of a language, not its labels; one without any of these
  has its `text`.
  """

  languages: tuple[str, ...] = ("en",)
  tag_rate: float = 0.5

  def __post_init__(self):
    if not self.languages:
      raise errors.UserError("languages=(), expected at least one, e.g. 'en'.")
    if not 0 <= self.tag_rate <= 1:
      raise errors.UserError(f"tag_rate={self.tag_rate}, expected [0, 1].")

  def __call__(
    self,
    example: Mapping[str, Any],
    rng: np.random.Generator,
    *,
    train: bool,
  ) -> str:
    if "text" in example and f"label_{self.languages[0]}" not in example:
      return one_of(example, "text", rng, train=train)
    language = self.languages[0]
    if train and len(self.languages) > 1:
      language = self.languages[rng.integers(len(self.languages))]
    label = text_field(example, f"label_{language}")
    joined = example.get(f"tags_{language}", "")
    tags = joined.split("|") if joined else []
    if train and tags:
      order = rng.permutation(len(tags))
      kept = rng.random(len(tags)) < self.tag_rate
      tags = [tags[i] for i in order if kept[i]]
    return SEPARATOR.join([label, *tags])

  def longest(self, example: Mapping[str, Any]) -> list[list[str]]:
    """All that training may say of an example: parts of each caption."""
    if "text" in example and f"label_{self.languages[0]}" not in example:
      return [[text] for text in all_of(example, "text")]
    found = []
    for language in self.languages:
      joined = example.get(f"tags_{language}", "")
      tags = joined.split("|") if joined else []
      found.append([text_field(example, f"label_{language}"), *tags])
    return found


@dataclass(frozen=True, kw_only=True)
class TextTransform:
  """Adds `text`, token ids from bos to eos, padded, and `text_mask`."""

  tokenizer: TextTokenizer
  max_tokens: int = 32
  # Field of the source, a text or several of which training draws one; "" =
  # composed by `caption`.
  field: str = ""
  caption: Caption = Caption()
  output: str = "text"  # Field that is added; "answer" for a second text.

  def __post_init__(self):
    if self.max_tokens < 3:
      raise errors.UserError(
        f"max_tokens={self.max_tokens}, expected at least 3: bos, eos and one "
        "between them."
      )

  def specs(self) -> dict[str, FieldSpec]:
    shape = (self.max_tokens,)
    return {
      self.output: FieldSpec(shape, "int32", "t", "token ids"),
      f"{self.output}_mask": FieldSpec(
        shape, "bool", "t", "True = not padding"
      ),
    }

  def __call__(
    self,
    example: Mapping[str, Any],
    rng: np.random.Generator,
    *,
    train: bool,
  ) -> dict[str, Any]:
    if self.field:
      text = one_of(example, self.field, rng, train=train)
    else:
      text = self.caption(example, rng, train=train)
    ids = self.tokenizer.encode(text, self.max_tokens)
    mask = ids != self.tokenizer.pad_id
    return {**example, self.output: ids, f"{self.output}_mask": mask}

  def longest(self, example: Mapping[str, Any]) -> list[list[str]]:
    """The texts that training draws from, each as parts of a caption.

    Raises:
      UserError: no such field.
      ValueError: it holds no text.
    """
    if self.field:
      return [[text] for text in all_of(example, self.field)]
    return self.caption.longest(example)

  def most_tokens(self, example: Mapping[str, Any]) -> int:
    """No text of the example has more, whatever is drawn."""
    counts = [
      2 + sum(1 + len(self.tokenizer.pieces(part)) for part in parts) - 1
      for parts in self.longest(example)
    ]  # bos, eos, and a comma between two parts.
    return min(self.max_tokens, max(counts))


def one_of(
  example: Mapping[str, Any],
  name: str,
  rng: np.random.Generator,
  *,
  train: bool,
) -> str:
  """A text of an example; of several, any one in training, else the first.

  Raises:
    UserError: no such field.
    ValueError: it holds no text.
  """
  value = example.get(name)
  if isinstance(value, tuple) and value:
    number = rng.integers(len(value)) if train else 0
    example = {name: value[number]}
  return text_field(example, name)


def all_of(example: Mapping[str, Any], name: str) -> list[str]:
  """What `one_of` draws from; raises the same."""
  value = example.get(name)
  if isinstance(value, tuple) and value:
    return [text_field({name: text}, name) for text in value]
  return [text_field(example, name)]


def text_field(example: Mapping[str, Any], name: str) -> str:
  """Returns a text of an example.

  Raises:
    UserError: no such field.
    ValueError: it holds no text.
  """
  if name not in example:
    raise errors.unknown("text field of the source", name, example)
  value = example[name]
  if not isinstance(value, str):
    raise ValueError(
      f"field {name!r} holds a {type(value).__name__}, expected text"
    )
  return value


@dataclass(frozen=True, kw_only=True)
class MaskText:
  """Hides tokens of `text`, as BERT does, or whole words, or runs of words.

  Adds `text_masked`, the corrupted ids, `text_hidden`, where the hidden ones
  are, and `text_hidden_mask`, which of these slots are in use.
  """

  tokenizer: TextTokenizer
  max_tokens: int = 32
  rate: float = 0.15  # Share of the content tokens.
  strategy: str = "token"  # See `masks.TEXT_STRATEGIES`.

  def __post_init__(self):
    if self.strategy not in masks.TEXT_STRATEGIES:
      raise errors.unknown(
        "mask strategy", self.strategy, masks.TEXT_STRATEGIES
      )
    if not 0 < self.rate < 1:
      raise errors.UserError(f"rate={self.rate}, expected (0, 1).")

  @property
  def slots(self) -> int:
    return masks.max_hidden(self.rate, self.max_tokens)

  def most_hidden(self, num_tokens: int, texts: Iterable[str]) -> int:
    """No text of so many tokens hides more, whatever is drawn.

    Args:
      num_tokens: bos and eos included.
      texts: of which one is hidden; only of whole words they matter.
    """
    most = masks.count_hidden(self.rate, num_tokens - 2, self.slots)
    if self.strategy != "word":
      return most
    # One word is hidden whatever its length, up to the number of slots.
    for text in texts:
      ids = np.array(self.tokenizer.pieces(text), np.int32)
      found = masks.words(ids, self._vocabulary)
      most = max([most, *(min(len(word), self.slots) for word in found)])
    return most

  @functools.cached_property
  def _vocabulary(self) -> masks.Vocabulary:
    return masks.Vocabulary(
      self.tokenizer.mask_id,
      self.tokenizer.content,
      self.tokenizer.starts_word,
      self.tokenizer.ends_word,
    )

  def specs(self) -> dict[str, FieldSpec]:
    tokens, slots = (self.max_tokens,), (self.slots,)
    return {
      "text_masked": FieldSpec(tokens, "int32", "t", "corrupted token ids"),
      "text_hidden": FieldSpec(slots, "int32", "k", "positions to predict"),
      "text_hidden_mask": FieldSpec(slots, "bool", "k", "True = in use"),
    }

  def __call__(
    self,
    example: Mapping[str, Any],
    rng: np.random.Generator,
    *,
    train: bool,
  ) -> dict[str, Any]:
    del train  # Held-out losses hide tokens too.
    masked = masks.TEXT_STRATEGIES[self.strategy](
      rng,
      example["text"],
      self._vocabulary,
      rate=self.rate,
      slots=self.slots,
    )
    return {
      **example,
      "text_masked": masked.tokens,
      "text_hidden": masked.hidden,
      "text_hidden_mask": masked.hidden_mask,
    }
