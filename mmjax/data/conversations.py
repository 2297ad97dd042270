"""Conversations in a JSONL file, one a line; docs/conversations.md has more.

Such as {"messages": [{"role": "user", "content": [{"type": "image", "path":
"cat.png"}, {"type": "text", "text": "What is this?"}]}, {"role": "assistant",
"content": "A cat."}]}.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, SupportsIndex

from mmjax.core import errors
from mmjax.data import chat

NUM_LISTED = 5  # Broken lines in the error.


class ConversationSource:
  """One example per line: `messages`, and `id` if the line has one.

  All lines are checked when the file is opened; later each is read where it
  lies, by any thread. Pictures are read when an example is made.

  Args:
    split: name of the file in the folder, without ".jsonl".
    path: a folder, or one file, which then is the split.

  Raises:
    UserError: no such file, or broken lines: names the first of them.
  """

  def __init__(self, *, split: str, path: str = ""):
    self._file = find(path, split)
    self._where: list[tuple[int, int]] = []  # First byte, number of bytes.
    problems: list[str] = []
    for number, offset, line in _lines(self._file):
      try:
        self._check(line)
      except ValueError as e:
        problems.append(f"  {self._file}:{number}: {e}")
      self._where.append((offset, len(line)))
    if problems:
      more = len(problems) - NUM_LISTED
      listed = problems[:NUM_LISTED] + [f"  and {more} more"] * (more > 0)
      raise errors.UserError(
        f"{len(problems)} of {len(self._where)} conversations cannot be "
        "used:\n" + "\n".join(listed)
      )

  def __len__(self) -> int:
    return len(self._where)

  def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
    offset, length = self._where[index.__index__()]
    with self._file.open("rb") as file:
      file.seek(offset)
      return self._parse(file.read(length))

  def _parse(self, line: bytes) -> dict[str, Any]:
    content = parse(line)
    messages = tuple(
      message._replace(parts=tuple(map(self._locate, message.parts)))
      for message in chat.read_messages(content["messages"])
    )
    example = {"messages": messages}
    if isinstance(content.get("id"), str):
      example["id"] = content["id"]
    return example

  def _locate(self, part):
    """Paths are relative to the file's folder."""
    if isinstance(part, str):
      return part
    return chat.Picture(str(self._file.parent / part.content))

  def _check(self, line):
    for message in self._parse(line)["messages"]:
      for picture in message.pictures:
        if not Path(picture.content).is_file():
          raise ValueError(f"no picture at {picture.content!r}")


def find(path: str, split: str) -> Path:
  """The file of a split.

  Raises:
    UserError: there is none; says where it was looked for.
  """
  if not path:
    raise errors.UserError(
      "The source 'conversations' needs data.path: a JSONL file, or a folder "
      f"with {split or '<split>'}.jsonl."
    )
  given = Path(path).expanduser()
  file = given / f"{split}.jsonl" if given.is_dir() else given
  if not file.is_file():
    known = sorted(p.stem for p in given.glob("*.jsonl"))
    raise errors.UserError(
      f"No conversations at {str(file)!r} (data.path, data.split="
      f"{split!r}).{errors.nearest(split, known)} Expected a JSONL file, or a "
      f"folder with one per split; found the splits {known}."
    )
  return file


def parse(line: bytes) -> Mapping[str, Any]:
  """One line of JSON with `messages`.

  Raises:
    ValueError: it is something else.
  """
  try:
    content = json.loads(line)
  except ValueError as e:
    raise ValueError(f"not JSON: {e}") from e
  if not isinstance(content, Mapping) or "messages" not in content:
    raise ValueError('expected an object with "messages"')
  return content


def _lines(file: Path) -> Iterator[tuple[int, int, bytes]]:
  """Number, first byte and content of each line that is not blank."""
  offset = 0
  with file.open("rb") as lines:
    for number, line in enumerate(lines, 1):
      if line.strip():
        yield number, offset, line
      offset += len(line)


def write(
  examples: Iterable[Mapping[str, Any]], folder: Path, split: str
) -> int:
  """Writes conversations whose pictures are encoded bytes; returns how many.

  As `<split>.jsonl`, with the pictures in `<split>/`.
  """
  pictures = folder / split
  pictures.mkdir(parents=True, exist_ok=True)
  count = 0
  with (folder / f"{split}.jsonl").open("w", encoding="utf-8") as file:
    for count, example in enumerate(examples, 1):
      messages = [
        {
          "role": message.role,
          "content": list(_content(message, pictures, f"{count:06d}_{i}")),
        }
        for i, message in enumerate(example["messages"])
      ]
      line = {"id": example.get("id", str(count)), "messages": messages}
      file.write(json.dumps(line, ensure_ascii=False) + "\n")
  return count


def _content(
  message: chat.Message, folder: Path, stem: str
) -> Iterator[Mapping[str, str]]:
  for i, part in enumerate(message.parts):
    if isinstance(part, str):
      yield {"type": "text", "text": part}
      continue
    file = folder / f"{stem}_{i}.{_ending(part.content)}"
    file.write_bytes(part.content)
    yield {"type": "image", "path": f"{folder.name}/{file.name}"}


def _ending(encoded: bytes) -> str:
  return "webp" if encoded[8:12] == b"WEBP" else "png"
