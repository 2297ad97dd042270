"""What a conversation consists of, and how its roles become text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from mmjax.core import errors

ROLES = ("system", "user", "assistant")
ASSISTANT = "assistant"


class Picture(NamedTuple):
  """A picture within a message."""

  content: Any  # A path, encoded bytes, or pixels: uint8 h w 3.


class Message(NamedTuple):
  """What one side says: texts and pictures in their order."""

  role: str  # One of `ROLES`.
  parts: tuple[str | Picture, ...]

  @property
  def text(self) -> str:
    """The texts alone."""
    return " ".join(part for part in self.parts if isinstance(part, str))

  @property
  def pictures(self) -> tuple[Picture, ...]:
    return tuple(part for part in self.parts if isinstance(part, Picture))


@dataclass(frozen=True, kw_only=True)
class ChatTemplate:
  """What a turn of each role begins with; each ends with eos.

  A conversation is `bos`, then turn by turn the role's words, what is said,
  and `eos`, with `sep` wherever a token of a picture stands. So it needs no
  token that a text tokenizer lacks. Roles cannot be forged: what a text says
  stands before the eos of its turn, which no text can hold.

  Raises:
    UserError: two roles begin alike, or with nothing.
  """

  system: str = "System:"
  user: str = "User:"
  assistant: str = "Assistant:"

  def __post_init__(self):
    words = [getattr(self, role) for role in ROLES]
    if not all(word.strip() for word in words):
      raise errors.UserError(
        f"A chat template of {words}, expected some words for each of "
        f"{list(ROLES)}."
      )
    if len(set(words)) < len(words):
      raise errors.UserError(f"A chat template of {words}: they must differ.")


def read_template(section: Any) -> ChatTemplate:
  """The template in a tokenizer file: a word or more for each role.

  Raises:
    UserError: a wrong section.
  """
  if not isinstance(section, Mapping):
    raise errors.UserError(f"chat_template={section!r}, expected an object.")
  for role in section:
    if role not in ROLES:
      raise errors.unknown("role in the chat_template", role, ROLES)
    if not isinstance(section[role], str):
      raise errors.UserError(
        f"chat_template: {role}={section[role]!r}, expected some words."
      )
  return ChatTemplate(**section)


def read_messages(messages: Any) -> tuple[Message, ...]:
  """Reads the list in `messages` of a line of JSON, and checks it.

  Raises:
    ValueError: it is no conversation; says what is wrong.
  """
  if not isinstance(messages, Sequence) or isinstance(messages, str):
    raise ValueError(f"'messages' is {_name(messages)}, expected a list")
  read = tuple(
    _message(message, f"message {i}") for i, message in enumerate(messages, 1)
  )
  check(read)
  return read


def check(messages: Sequence[Message]) -> None:
  """Checks the order of the turns.

  Raises:
    ValueError: nothing is said by an assistant, or a system message is not
      the first.
  """
  if not any(message.role == ASSISTANT for message in messages):
    raise ValueError("no message has the role 'assistant': nothing to learn")
  if any(message.role == "system" for message in messages[1:]):
    raise ValueError("only the first message may have the role 'system'")


def _message(message, where):
  if not isinstance(message, Mapping):
    raise ValueError(f"{where} is {_name(message)}, expected an object")
  for key in ("role", "content"):
    if key not in message:
      raise ValueError(f"{where} has no {key!r}, only {sorted(message)}")
  role, content = message["role"], message["content"]
  if role not in ROLES:
    raise ValueError(
      f"{where} has the role {role!r}, expected one of {list(ROLES)}"
    )
  if isinstance(content, str):
    content = [{"type": "text", "text": content}]
  if not isinstance(content, Sequence):
    raise ValueError(
      f"{where} has {_name(content)} as content, expected text or a list"
    )
  parts = tuple(_part(part, where) for part in content)
  if not any(isinstance(part, Picture) or part.strip() for part in parts):
    raise ValueError(f"{where} is empty")
  if role == ASSISTANT and not all(isinstance(part, str) for part in parts):
    raise ValueError(f"{where} is the assistant's, which can show no pictures")
  return Message(role, parts)


def _part(part, where):
  kind = part.get("type") if isinstance(part, Mapping) else None
  key = {"text": "text", "image": "path"}.get(kind)
  if key is None:
    raise ValueError(
      f"{where} has a part {part!r}, expected "
      '{"type": "text", "text": ...} or {"type": "image", "path": ...}'
    )
  if not isinstance(part.get(key), str):
    raise ValueError(f"{where} has a part {part!r} without {key!r}")
  return part["text"] if kind == "text" else Picture(part["path"])


def _name(value):
  return "nothing" if value is None else f"a {type(value).__name__}"
