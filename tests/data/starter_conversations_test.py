import io

import numpy as np
import pytest
from PIL import Image

from mmjax.core import errors
from mmjax.data import chat, open_source, starter
from mmjax.data.starter_conversations import PER_PICTURE


@pytest.fixture(scope="module")
def examples():
  source = open_source("starter_conversations", split="unseen_artist")
  assert len(source) == PER_PICTURE * 1686
  return source, [source[i] for i in range(300)]


def test_every_conversation_is_one_that_a_file_could_hold(examples):
  for example in examples[1]:
    messages = example["messages"]
    chat.check(messages)
    roles = [m.role for m in messages if m.role != "system"]
    assert roles == ["user", "assistant"] * (len(roles) // 2)
    assert all(m.text.strip() for m in messages)


def test_the_first_answer_about_a_picture_names_what_it_shows(examples):
  items = {i.key: i.fields for i in starter.items("emoji", "unseen_artist")}
  for example in examples[1]:
    fields = items[example["id"].rsplit("/", 1)[0]]
    messages = example["messages"]
    at = next(i for i, m in enumerate(messages) if m.pictures)
    order = messages[0].text if messages[0].role == "system" else ""
    chinese = "？" in messages[at].text or order == "Answer in Chinese."
    want = fields["label_zh"] if chinese else fields["label_en"]
    if order == "Answer in capitals.":
      want = want.upper()
    assert messages[at + 1].text == want


def test_pictures_are_those_of_the_table(examples):
  messages = examples[1][0]["messages"]
  picture = next(p for m in messages for p in m.pictures)
  with Image.open(io.BytesIO(picture.content)) as image:
    assert image.size == (64, 64)


def test_all_kinds_of_turns_come_up(examples):
  _, many = examples
  counts = [sum(len(m.pictures) for m in e["messages"]) for e in many]
  assert set(counts) == {1, 2}
  assert 0.15 < np.mean(np.array(counts) == 2) < 0.35
  said = {m.text for e in many for m in e["messages"]}
  asked = {"Answer in Chinese.", "And in Chinese?", "这个呢？"}
  assert asked | {"yes", "no"} <= said
  # Nobody can know an artist that is never trained on.
  assert "Who drew it?" not in said


def test_an_example_depends_on_its_index_alone(examples):
  source, many = examples
  again = open_source("starter_conversations", split="unseen_artist")
  assert again[7] == many[7] == source[7]
  with pytest.raises(IndexError):
    source[len(source)]


def test_wrong_names_are_refused():
  with pytest.raises(errors.UserError, match="unseen_artist"):
    open_source("starter_conversations", split="unseen_artis")
  with pytest.raises(errors.UserError, match="needs no files"):
    open_source("starter_conversations", split="train", path="here")


def test_easy_vqa_asks_all_about_one_picture(tmp_path):
  folder = tmp_path / "test"
  (folder / "images").mkdir(parents=True)
  (tmp_path / "answers.txt").write_text("red\nyes\n")
  rows = '[["what color?", "red", 0], ["red?", "yes", 0], ["?", "red", 1]]'
  (folder / "questions.json").write_text(rows)
  for i in range(2):
    (folder / f"images/{i}.png").write_bytes(f"picture {i}".encode())
  source = open_source(
    "easy_vqa_conversations", split="test", path=str(tmp_path)
  )
  assert len(source) == 2
  assert source[0] == {
    "id": "test/0",
    "messages": (
      chat.Message("user", (chat.Picture(b"picture 0"), "what color?")),
      chat.Message("assistant", ("red",)),
      chat.Message("user", ("red?",)),
      chat.Message("assistant", ("yes",)),
    ),
  }
