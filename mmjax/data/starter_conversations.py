"""Conversations about pictures, made from tables by templates as they are read.

Nothing is stored; `experiments/conversations.py` writes them as JSONL.
"""

import zipfile
from collections.abc import Mapping
from typing import Any, SupportsIndex

import numpy as np

from mmjax.core import errors
from mmjax.data import chat, easy_vqa, starter
from mmjax.data.starter import tables

PER_PICTURE = 3  # Conversations.
MAX_TURNS = 4  # Questions about the first picture.
SECOND_RATE = 0.25  # Of conversations in which a second picture is shown.
CHINESE_RATE = 0.25  # Of conversations in Chinese.
SYSTEM_RATE = 0.2  # Of English ones whose system message changes the answers.
GREETING_RATE = 0.03  # Of conversations that begin without a picture.
IN_CHINESE = "Answer in Chinese."
IN_CAPITALS = "Answer in capitals."
GREETINGS = ("Hello", "Hi", "Good morning")
WELCOME = "Hello! Show me a picture."
NUM_TAGS = 3  # That are said.


class StarterConversations:
  """Questions and answers about the pictures of the starter set.

  What is it, which group, who drew it, three words for it, the same in the
  other language, yes or no; one to four of them, one in four about a second
  picture too. Example i is a function of (split, i) alone.

  Raises:
    UserError: an unknown split, or a path: the pictures ship with mmjax.
  """

  def __init__(self, *, split: str, path: str = ""):
    if path:
      raise errors.UserError(
        "The source 'starter_conversations' needs no files; got data.path="
        f"{path!r}."
      )
    self._items = starter.items("emoji", split)
    self._split = starter.SPLITS["emoji"].index(split)
    # Reads by any thread: zipfile has a lock of its own.
    self._archive = zipfile.ZipFile(starter.archive("emoji"))

  def __len__(self) -> int:
    return PER_PICTURE * len(self._items)

  def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
    index = index.__index__()
    if not 0 <= index < len(self):
      raise IndexError(f"index {index} of {len(self)} examples")
    rng = np.random.default_rng((self._split, index))
    item = self._items[index // PER_PICTURE]
    messages = []
    if rng.random() < GREETING_RATE:
      messages += [_user(GREETINGS[rng.integers(3)]), _assistant(WELCOME)]
    language = "zh" if rng.random() < CHINESE_RATE else "en"
    order = ""
    if language == "en" and not messages and rng.random() < SYSTEM_RATE:
      order = (IN_CHINESE, IN_CAPITALS)[rng.integers(2)]
      messages.append(chat.Message("system", (order,)))
    messages += self._turns(item, language, order, rng)
    if rng.random() < SECOND_RATE:
      other = self._items[rng.integers(len(self._items))]
      question, answer = _first(other, language, order)
      question = "这个呢？" if language == "zh" else "And this?"
      messages += [_user(self._picture(other), question), _assistant(answer)]
    key = f"{item.key}/{index % PER_PICTURE}"
    return {"id": key, "messages": tuple(messages)}

  def _turns(self, item, language, order, rng):
    question, answer = _first(item, language, order)
    messages = [
      _user(self._picture(item), _one_of(question, rng)),
      _assistant(answer),
    ]
    if order:  # It is about the name alone.
      return messages
    more = _more(item.fields, language, rng)
    count = min(int(rng.integers(MAX_TURNS)), len(more))
    for i in rng.permutation(len(more))[:count]:
      question, answer = more[i]
      messages += [_user(_one_of(question, rng)), _assistant(answer)]
    return messages

  def _picture(self, item):
    return chat.Picture(self._archive.read(item.file))


class EasyVqaConversations:
  """All questions about one picture of easy-VQA as one conversation."""

  def __init__(self, *, split: str, path: str = ""):
    self._source = easy_vqa.EasyVqaSource(split=split, path=path)
    pictures: dict[str, list[int]] = {}
    for i in range(len(self._source)):
      picture = self._source.without_picture(i)["image_id"]
      pictures.setdefault(picture, []).append(i)
    self._pictures = list(pictures.items())

  def __len__(self) -> int:
    return len(self._pictures)

  def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
    key, rows = self._pictures[index.__index__()]
    messages: list[chat.Message] = []
    for row in rows:
      example = self._source.without_picture(row)
      shown = () if messages else (chat.Picture(self._source.picture(row)),)
      messages.append(_user(*shown, example["question"]))
      messages.append(_assistant(example["answer"]))
    return {"id": key, "messages": tuple(messages)}


def _user(*parts: str | chat.Picture) -> chat.Message:
  return chat.Message("user", parts)


def _assistant(text: str) -> chat.Message:
  return chat.Message(chat.ASSISTANT, (text,))


def _one_of(choices: tuple[str, ...], rng: np.random.Generator) -> str:
  return choices[rng.integers(len(choices))]


def _first(
  item: starter.Item, language: str, order: str
) -> tuple[tuple[str, ...], str]:
  """Ways to ask what a picture shows, and the answer."""
  if language == "zh":
    return ("这是什么？", "图里有什么？"), item.fields["label_zh"]
  asked = ("What is this?", "What do you see?", "What does it show?")
  label = item.fields["label_en"]
  answers = {
    IN_CHINESE: item.fields["label_zh"],
    IN_CAPITALS: label.upper(),
  }
  return asked, answers.get(order, label)


def _more(
  fields: Mapping[str, str], language: str, rng: np.random.Generator
) -> list[tuple[tuple[str, ...], str]]:
  """What else may be asked: ways to ask it, and the answer."""
  tags = fields[f"tags_{language}"].split("|")[:NUM_TAGS]
  if language == "zh":
    return [
      (("英文怎么说？", "用英文呢？"), fields["label_en"]),
      (("用几个词描述。", "有哪些标签？"), "、".join(tags)),
    ]
  group, groups = _words(fields["group"]), starter.class_names("group")
  guess = group if rng.random() < 0.5 else _words(_one_of(groups, rng))
  label = fields["label_zh"]
  more = [
    (("Which group is it in?", "What kind of thing is it?"), group),
    (("Which subgroup?", "More precisely?"), _words(fields["subgroup"])),
    (("Give me three words for it.", "Describe it."), ", ".join(tags)),
    (("And in Chinese?", "How do you say that in Chinese?"), label),
    ((f"Is it in {guess}?",), "yes" if guess == group else "no"),
  ]
  if fields["artist"] != tables.TEST_ARTIST:  # Whom nobody can know.
    more.append((("Who drew it?", "By which artist?"), fields["artist"]))
  return more


def _words(name: str) -> str:
  return name.replace("-", " ")
