import collections
import io
import json
import sys

import numpy as np
import pytest
from PIL import Image

from mmjax.core import errors
from mmjax.data import open_source, pipeline

# What the authors state on the package's page.
QUESTIONS = {"train": 38_575, "test": 9_673}
PICTURES = {"train": 4_000, "test": 1_000}
COLORS = {"black", "blue", "brown", "gray", "green", "red", "teal", "yellow"}
SHAPES = {"circle", "rectangle", "triangle"}


@pytest.fixture(scope="module")
def examples():
  """All examples of the smaller split."""
  source = open_source("easy_vqa", split="test")
  return [source[i] for i in range(len(source))]


@pytest.fixture
def folder(tmp_path):
  """A set of one picture and two questions, laid out like the package's."""
  (tmp_path / "answers.txt").write_text("yes\nred\ncircle\n")
  images = tmp_path / "test" / "images"
  images.mkdir(parents=True)
  Image.new("RGB", (8, 8), "red").save(images / "7.png")
  rows = [["what is the color of the circle?", "red", 7], ["red?", "yes", 7]]
  (tmp_path / "test" / "questions.json").write_text(json.dumps(rows))
  return tmp_path


@pytest.mark.parametrize("split", QUESTIONS)
def test_a_split_has_the_published_counts(split):
  source = open_source("easy_vqa", split=split)
  last = source[len(source) - 1]
  assert len(source) == source.splits[split] == QUESTIONS[split]
  # Questions are sorted by picture; these are counted from 0.
  assert last["image_id"] == f"{split}/{PICTURES[split] - 1}"
  with pytest.raises(IndexError):
    source[len(source)]


def test_answers_are_as_many_of_each_type_as_published(examples):
  answers = collections.Counter(e["answer"] for e in examples)
  types = collections.Counter(e["question_type"] for e in examples)
  assert answers["yes"] + answers["no"] == types["yes_no"] == 7_136
  assert types["shape"] == sum(answers[name] for name in SHAPES)
  assert types["color"] == sum(answers[name] for name in COLORS)
  assert len({e["image_id"] for e in examples}) == PICTURES["test"]
  assert len({e["question_id"] for e in examples}) == QUESTIONS["test"]


@pytest.mark.parametrize("split", QUESTIONS)
def test_the_answers_are_sorted_and_the_same_of_both_splits(split, examples):
  expected = tuple(sorted({*COLORS, *SHAPES, "yes", "no"}))
  source = open_source("easy_vqa", split=split)
  assert source.class_names == {"answer": expected}
  assert {e["answer"] for e in examples} == set(expected)


def test_an_example_is_what_the_files_say(examples):
  example = examples[1]
  assert {k: v for k, v in example.items() if k != "image"} == {
    "question": "what is the color of the triangle?",
    "answer": "red",
    "question_type": "color",
    "question_id": "test/1",
    "image_id": "test/0",
  }
  with Image.open(io.BytesIO(example["image"])) as picture:
    pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
  assert pixels.shape == (64 * 64, 3)
  # What is not background is red, as the answer says.
  colors = collections.Counter(map(tuple, pixels.tolist()))
  red, green, blue = colors.most_common(2)[1][0]
  assert red > 2 * max(green, blue)


def test_every_question_fits_the_text_of_the_config(examples):
  made = pipeline.build_pipeline(
    dict(
      source="easy_vqa",
      split="test",
      text=dict(field="question", max_tokens=24),
      label=dict(field="answer"),
    )
  )
  questions = {e["question"] for e in examples}
  assert max(map(made.tokenizer.num_tokens, questions)) <= 24
  example = made.example(1, 0, 0, train=True)
  assert made.class_names[example["label"]] == "red"
  said = made.tokenizer.decode(example["text"])
  assert said == "what is the color of the triangle?"


def test_a_folder_of_ones_own_is_read(folder):
  source = open_source("easy_vqa", split="test", path=str(folder))
  assert len(source) == 2
  assert source.class_names == {"answer": ("circle", "red", "yes")}
  first, second = source[0], source[1]
  assert second["question"] == "red?" and second["answer"] == "yes"
  assert first["image"] == second["image"]
  assert first["image"] == (folder / "test/images/7.png").read_bytes()
  with pytest.raises(IndexError):
    source[2]


def test_what_is_wrong_is_told(folder, monkeypatch):
  with pytest.raises(errors.UserError, match="Did you mean 'test'"):
    open_source("easy_vqa", split="tset")
  with pytest.raises(errors.UserError, match=r"questions\.json") as caught:
    open_source("easy_vqa", split="train", path=str(folder))
  assert str(folder) in str(caught.value)
  (folder / "test" / "questions.json").write_text('[["no answer", 7]]')
  with pytest.raises(errors.UserError, match="No easy-VQA data"):
    open_source("easy_vqa", split="test", path=str(folder))
  monkeypatch.setitem(sys.modules, "easy_vqa", None)
  with pytest.raises(errors.UserError, match=r"mmjax\[examples\]"):
    open_source("easy_vqa", split="test")


def test_a_first_part_of_a_split_is_its_beginning(examples):
  part = open_source("easy_vqa", split="test[:20%]")
  assert len(part) == 1_934  # Of 9,673, rounded down.
  assert part[1_933] == examples[1_933]
  with pytest.raises(errors.UserError, match="no examples"):
    open_source("easy_vqa", split="test[:0%]")


@pytest.mark.parametrize("split", QUESTIONS)
def test_open_questions_are_those_without_yes_or_no(split, examples):
  # Published: all questions, and of these so many with yes or no.
  count = QUESTIONS[split] - {"train": 28_407, "test": 7_136}[split]
  source = open_source("easy_vqa", split=f"{split}_open")
  assert len(source) == source.splits[f"{split}_open"] == count
  if split == "test":
    kept = [e for e in examples if e["answer"] not in ("yes", "no")]
    assert [source[i] for i in range(count)] == kept
