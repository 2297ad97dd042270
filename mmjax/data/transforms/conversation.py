"""Conversations: turns to tokens, pictures in their places, rows of several."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mmjax.core import errors
from mmjax.core.batch import FieldSpec
from mmjax.data import chat
from mmjax.data.tokenizer import TextTokenizer
from mmjax.data.transforms.image import ImageTransform

PACKED = "conversations"  # Field of several examples that share a row.


@dataclass
class Tokens:
  """A conversation, or the start of one, as lists of equal length."""

  ids: list[int] = field(default_factory=list)
  answer: list[bool] = field(default_factory=list)  # The assistant says it.
  # Which token of the pictures stands here, counted over all; -1 = a word.
  places: list[int] = field(default_factory=list)
  pictures: list[chat.Picture] = field(default_factory=list)

  @property
  def length(self) -> tuple[int, int]:
    """Tokens and pictures."""
    return len(self.ids), len(self.pictures)

  def first(self, tokens: int, pictures: int) -> "Tokens":
    """A copy of the start, so many tokens and pictures long."""
    return Tokens(
      self.ids[:tokens],
      self.answer[:tokens],
      self.places[:tokens],
      self.pictures[:pictures],
    )

  def add(self, ids: Sequence[int], *, answer: bool = False) -> None:
    self.ids += ids
    self.answer += [answer] * len(ids)
    self.places += [-1] * len(ids)

  def add_picture(self, picture: chat.Picture, count: int, token: int) -> None:
    start = len(self.pictures) * count
    self.ids += [token] * count
    self.answer += [False] * count
    self.places += range(start, start + count)
    self.pictures.append(picture)


@dataclass(frozen=True, kw_only=True)
class ConversationTransform:
  """Adds `text`, turns as `chat.ChatTemplate` writes them, and `images`.

  `text_answer` is True at what the assistant says, the eos of its turns
  included. A picture takes as many places of `text` as the encoder makes
  tokens of it, or a `pool`-th of them each way, and `text_places` says which
  of them stands where (LLaVA, Liu et al. 2023, arXiv:2304.08485, 4.1). An
  example with the field
  `conversations` holds several for one row: `text_segments` counts them from
  1, and `text_positions` starts anew with each.

  A conversation that is too long ends with the last turn of the assistant
  that fits; if none does, the example is broken.

  Raises:
    UserError: sizes that make no sense.
  """

  tokenizer: TextTokenizer
  max_tokens: int = 256  # Of a row, those of pictures included.
  max_images: int = 1  # Of a row; 0 = texts alone.
  patch_size: int = 8  # Pixels; the encoder's.
  # The mean of each square of so many patches a side takes one place.
  pool: int = 1
  image: ImageTransform = ImageTransform()

  def __post_init__(self):
    if self.tokenizer.chat is None:
      raise errors.UserError(
        "The tokenizer has no chat_template; see TextTokenizer.with_chat."
      )
    if self.max_images < 0:
      raise errors.UserError(f"max_images={self.max_images}, expected >= 0.")
    if self.patch_size < 1 or self.image.size % self.patch_size:
      raise errors.UserError(
        f"patch_size={self.patch_size} does not divide "
        f"image.size={self.image.size}."
      )
    side = self.image.size // self.patch_size
    if self.pool < 1 or side % self.pool:
      raise errors.UserError(
        f"pool={self.pool} does not divide the {side} patches a side of a "
        f"picture (image.size={self.image.size}, "
        f"patch_size={self.patch_size})."
      )
    least = 8 + self.max_images * self.image_tokens  # A few words besides.
    if self.max_tokens < least:
      raise errors.UserError(
        f"max_tokens={self.max_tokens}, expected at least {least}: "
        f"{self.max_images} pictures of {self.image_tokens} tokens each, and "
        "some words."
      )

  @property
  def image_tokens(self) -> int:
    """Places that a picture takes."""
    return (self.image.size // self.patch_size // self.pool) ** 2

  def measure(self, example: Mapping[str, Any]) -> tuple[int, int]:
    """Tokens and pictures of an example, as far as it fits.

    Raises:
      ValueError: nothing of it does.
    """
    made = self.tokens(example["messages"])
    return len(made.ids), len(made.pictures)

  def specs(self) -> dict[str, FieldSpec]:
    shape = (self.max_tokens,)
    specs = {
      "text": FieldSpec(shape, "int32", "t", "token ids"),
      "text_mask": FieldSpec(shape, "bool", "t", "True = not padding"),
      "text_answer": FieldSpec(shape, "bool", "t", "True = assistant's"),
      "text_segments": FieldSpec(shape, "int32", "t", "1, 2, ...; 0 = padding"),
      "text_positions": FieldSpec(shape, "int32", "t", "in the conversation"),
    }
    if self.max_images:
      size = self.image.size
      specs |= {
        "text_places": FieldSpec(
          shape, "int32", "t", "which token of the pictures; -1 = a word"
        ),
        "images": FieldSpec(
          (self.max_images, size, size, 3), "uint8", "m h w c", "pixels, RGB"
        ),
        "images_mask": FieldSpec(
          (self.max_images,), "bool", "m", "True = a picture"
        ),
      }
    return specs

  def facts(self) -> dict[str, Any]:
    """What the encoder has to agree with."""
    side = self.image.size // self.patch_size
    if not self.max_images:
      return {}
    return {"image_grid": (side, side), "image_pool": self.pool}

  def prepare(self, example: Mapping[str, Any]) -> dict[str, Any]:
    """Decodes the pictures.

    Raises:
      UserError: the source has no conversations.
      ValueError: one is not a picture.
      OSError: one cannot be read.
    """
    if PACKED in example:
      return {**example, PACKED: tuple(map(self.prepare, example[PACKED]))}
    if "messages" not in example:
      raise errors.unknown("field of the source", "messages", example)
    messages = tuple(
      message._replace(parts=tuple(map(self._decode, message.parts)))
      for message in example["messages"]
    )
    return {**example, "messages": messages}

  def _decode(self, part):
    if isinstance(part, str):
      return part
    content = part.content
    if isinstance(content, str):
      with open(content, "rb") as file:
        content = file.read()
    return chat.Picture(
      self.image.prepare({self.image.field: content})[self.image.field]
    )

  def __call__(
    self,
    example: Mapping[str, Any],
    rng: np.random.Generator,
    *,
    train: bool,
  ) -> dict[str, Any]:
    example = self.prepare(example)
    conversations = example.get(PACKED, (example,))
    rows = [self.tokens(one["messages"]) for one in conversations]
    messages = [m for one in conversations for m in one["messages"]]
    fields = self._row(rows, rng, tuple(m.text for m in messages), train=train)
    return {**example, **fields}

  def tokens(self, messages: Sequence[chat.Message]) -> Tokens:
    """The tokens of a conversation as far as it fits.

    Raises:
      ValueError: not even the assistant's first turn does.
    """
    return self.fitting(messages)[0]

  def fitting(self, messages: Sequence[chat.Message]) -> tuple[Tokens, int]:
    """As `tokens`, and the number of messages that fit."""
    whole = self.start()
    kept, count = whole.length, 0
    for i, message in enumerate(messages, 1):
      self._extend(whole, message)
      fits = (
        len(whole.ids) <= self.max_tokens
        and len(whole.pictures) <= self.max_images
      )
      if not fits:
        break
      if message.role == chat.ASSISTANT:
        kept, count = whole.length, i
    made = whole.first(*kept)
    if not any(made.answer):
      raise ValueError(
        f"the assistant's first turn ends after {len(whole.ids)} tokens and "
        f"{len(whole.pictures)} pictures, or later: max_tokens="
        f"{self.max_tokens}, max_images={self.max_images}"
      )
    return made, count

  def start(self) -> Tokens:
    """What every conversation begins with."""
    made = Tokens()
    made.add([self.tokenizer.bos_id])
    return made

  def extended(self, before: Tokens, message: chat.Message) -> Tokens:
    """The tokens with a turn more."""
    made = before.first(*before.length)
    self._extend(made, message)
    return made

  def opened(self, before: Tokens, role: str) -> Tokens:
    """The tokens up to where a turn of a role begins."""
    made = before.first(*before.length)
    made.add(self._openings[role])
    return made

  def _extend(self, made, message):
    made.add(self._openings[message.role])
    answer = message.role == chat.ASSISTANT
    for part in message.parts:
      if isinstance(part, str):
        made.add(self.tokenizer.pieces(part), answer=answer)
      else:
        made.add_picture(part, self.image_tokens, self.tokenizer.sep_id)
    made.add([self.tokenizer.eos_id], answer=answer)

  @functools.cached_property
  def _openings(self) -> dict[str, list[int]]:
    """What a turn of each role begins with."""
    words = vars(self.tokenizer.chat)
    return {role: self.tokenizer.pieces(words[role]) for role in chat.ROLES}

  def prompt(
    self, messages: Sequence[chat.Message], most: int
  ) -> tuple[Tokens, list[chat.Message]]:
    """What the assistant goes on from, and the messages that it holds.

    Where that is longer than `most` tokens, or has too many pictures, the
    first questions are left out, each with all up to the next; a system
    message stays.

    Raises:
      UserError: the last question alone does not fit.
    """
    system = [m for m in messages[:1] if m.role == "system"]
    starts = [i for i, m in enumerate(messages) if m.role == "user"]
    made, kept = self.start(), list(messages)
    for start in starts:
      kept = [*system, *messages[start:]]
      made = self.start()
      for message in kept:
        made = self.extended(made, message)
      made = self.opened(made, chat.ASSISTANT)
      if len(made.ids) <= most and len(made.pictures) <= self.max_images:
        return made, kept
    raise errors.UserError(
      f"The last message alone makes a prompt of {len(made.ids)} tokens and "
      f"{len(made.pictures)} pictures; there is room for {most} tokens and "
      f"{self.max_images} pictures. Say less, or show fewer."
    )

  def pixels(
    self,
    pictures: Sequence[chat.Picture],
    rng: np.random.Generator,
    *,
    train: bool,
    texts: tuple[str, ...] = (),
  ) -> dict[str, np.ndarray]:
    """The fields `images` and `images_mask` of a row, which says `texts`."""
    shape = (self.max_images, self.image.size, self.image.size, 3)
    images = np.zeros(shape, np.uint8)
    for i, picture in enumerate(pictures):
      alone = {self.image.field: picture.content, "texts": texts}
      made = self.image(alone, rng, train=train)
      images[i] = made["image"]
    here = np.arange(self.max_images) < len(pictures)
    return {"images": images, "images_mask": here}

  def _row(self, rows, rng, texts, *, train):
    shape, start, num_pictures = (self.max_tokens,), 0, 0
    fields = {
      "text": np.full(shape, self.tokenizer.pad_id, np.int32),
      "text_mask": np.zeros(shape, bool),
      "text_answer": np.zeros(shape, bool),
      "text_segments": np.zeros(shape, np.int32),
      "text_positions": np.zeros(shape, np.int32),
      "text_places": np.full(shape, -1, np.int32),
    }
    for segment, row in enumerate(rows, 1):
      end = start + len(row.ids)
      here = slice(start, end)
      places = np.array(row.places, np.int32)
      fields["text"][here] = row.ids
      fields["text_mask"][here] = True
      fields["text_answer"][here] = row.answer
      fields["text_segments"][here] = segment
      fields["text_positions"][here] = np.arange(end - start)
      fields["text_places"][here] = np.where(
        places < 0, places, places + num_pictures * self.image_tokens
      )
      start, num_pictures = end, num_pictures + len(row.pictures)
    if not self.max_images:
      del fields["text_places"]
      return fields
    pictures = [picture for row in rows for picture in row.pictures]
    return {**fields, **self.pixels(pictures, rng, train=train, texts=texts)}
