import concurrent.futures
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from mmjax.core import errors
from mmjax.data import chat, conversations, open_source

SAID = {"role": "assistant", "content": "A cat."}


def _png(color) -> bytes:
  file = io.BytesIO()
  Image.new("RGB", (4, 4), color).save(file, "PNG")
  return file.getvalue()


def _line(i):
  asked = [{"type": "image", "path": "cat.png"}, {"type": "text", "text": "哪"}]
  said = {"role": "assistant", "content": f"{'x' * i} {i}"}
  messages = [{"role": "user", "content": asked}, said]
  return json.dumps({"id": f"n{i}", "messages": messages}, ensure_ascii=False)


@pytest.fixture
def folder(tmp_path):
  """Twenty lines of different lengths, with blank ones between."""
  (tmp_path / "cat.png").write_bytes(_png("red"))
  lines = "\n\n".join(map(_line, range(20)))
  (tmp_path / "train.jsonl").write_text(lines, encoding="utf-8")
  return tmp_path


def test_any_line_is_read_by_any_thread(folder):
  source = open_source("conversations", split="train", path=str(folder))
  assert len(source) == 20
  order = np.random.default_rng(0).integers(20, size=200).tolist()
  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    for i, example in zip(
      order, pool.map(source.__getitem__, order), strict=True
    ):
      asked, said = example["messages"]
      assert example["id"] == f"n{i}"
      assert asked.parts == (chat.Picture(str(folder / "cat.png")), "哪")
      assert said == chat.Message("assistant", (f"{'x' * i} {i}",))


def test_a_file_is_a_split_of_any_name(folder):
  file = str(folder / "train.jsonl")
  assert len(open_source("conversations", split="test", path=file)) == 20


@pytest.mark.parametrize(
  ("line", "problem"),
  [
    ("{", "not JSON"),
    ("[]", 'expected an object with "messages"'),
    ('{"turns": []}', 'expected an object with "messages"'),
    (json.dumps({"messages": [SAID, {"role": "me"}]}), "message 2 has no"),
    (
      json.dumps({"messages": [{"role": "usr", "content": "x"}, SAID]}),
      "message 1 has the role 'usr'",
    ),
    (_line(1).replace("cat.png", "dog.png"), "no picture at"),
  ],
)
def test_a_broken_line_is_named_by_its_number(folder, line, problem):
  file = folder / "train.jsonl"
  with file.open("a", encoding="utf-8") as out:
    out.write(f"\n{line}\n")  # 39 lines stand before it.
  where = f"{file}:40: {problem}"
  with pytest.raises(errors.UserError, match=re.escape(where)) as raised:
    open_source("conversations", split="train", path=str(folder))
  assert "1 of 21 conversations" in str(raised.value)


def test_of_many_broken_lines_the_first_are_named(tmp_path):
  file = tmp_path / "train.jsonl"
  file.write_text("{\n" * 8)
  with pytest.raises(errors.UserError, match="8 of 8 conversations") as raised:
    open_source("conversations", split="train", path=str(file))
  assert f"{file}:5:" in str(raised.value)
  assert f"{file}:6:" not in str(raised.value)
  assert "and 3 more" in str(raised.value)


@pytest.mark.parametrize("path", ["", "{folder}", "{folder}/other"])
def test_a_missing_file_is_named(folder, path):
  problem = "needs data.path" if not path else "No conversations at"
  with pytest.raises(errors.UserError, match=problem) as raised:
    path = path.format(folder=folder)
    open_source("conversations", split="tain", path=path)
  assert ("Did you mean 'train'?" in str(raised.value)) == (path == str(folder))


def test_what_is_written_is_read_again(tmp_path):
  red, blue = chat.Picture(_png("red")), chat.Picture(_png("blue"))
  messages = (
    chat.Message("user", (red, "or", blue, "?")),
    chat.Message("assistant", ("红",)),
  )
  examples = [{"id": "a", "messages": messages}, {"messages": messages[1:]}]
  assert conversations.write(examples, tmp_path, "test") == 2
  source = open_source("conversations", split="test", path=str(tmp_path))
  first, second = source[0], source[1]
  assert first["id"] == "a" and second["messages"] == messages[1:]
  read = first["messages"][0].parts
  assert read[1::2] == ("or", "?")
  for picture, want in ((read[0], red), (read[2], blue)):
    with open(picture.content, "rb") as file:
      assert file.read() == want.content
