import re

import pytest

from mmjax.core import errors
from mmjax.data import chat

ASKED = {"role": "user", "content": "What is this?"}
SAID = {"role": "assistant", "content": "A cat."}


def test_a_text_is_a_list_of_one_part():
  parts = [{"type": "text", "text": "What is this?"}]
  assert chat.read_messages([ASKED, SAID]) == chat.read_messages(
    [{"role": "user", "content": parts}, SAID]
  )


def test_texts_and_pictures_keep_their_order():
  parts = [
    {"type": "text", "text": "Between"},
    {"type": "image", "path": "a.png"},
    {"type": "text", "text": "and"},
    {"type": "image", "path": "b.png"},
  ]
  message, _ = chat.read_messages([{"role": "user", "content": parts}, SAID])
  a, b = chat.Picture("a.png"), chat.Picture("b.png")
  assert message == chat.Message("user", ("Between", a, "and", b))
  assert message.pictures == (a, b)
  assert message.text == "Between and"


@pytest.mark.parametrize(
  ("messages", "problem"),
  [
    ("What?", "'messages' is a str, expected a list"),
    (None, "'messages' is nothing, expected a list"),
    (["What?", SAID], "message 1 is a str, expected an object"),
    ([{"role": "user"}, SAID], "message 1 has no 'content'"),
    ([ASKED, {"role": "bot", "content": "x"}], "message 2 has the role 'bot'"),
    ([{"role": "user", "content": 3}, SAID], "message 1 has a int as content"),
    ([{"role": "user", "content": " "}, SAID], "message 1 is empty"),
    ([{"role": "user", "content": []}, SAID], "message 1 is empty"),
    (
      [{"role": "user", "content": [{"type": "sound", "path": "a"}]}, SAID],
      "message 1 has a part {'type': 'sound', 'path': 'a'}, expected",
    ),
    (
      [{"role": "user", "content": [{"type": "image", "text": "a"}]}, SAID],
      "without 'path'",
    ),
    (
      [{"role": "assistant", "content": [{"type": "image", "path": "a"}]}],
      "which can show no pictures",
    ),
    ([ASKED], "no message has the role 'assistant'"),
    ([], "no message has the role 'assistant'"),
    (
      [ASKED, {"role": "system", "content": "Be brief."}, SAID],
      "only the first message may have the role 'system'",
    ),
  ],
)
def test_what_is_no_conversation_is_refused(messages, problem):
  with pytest.raises(ValueError, match=re.escape(problem)):
    chat.read_messages(messages)


@pytest.mark.parametrize(
  ("section", "problem"),
  [
    ("User:", "expected an object"),
    ({"usr": "U:"}, "Did you mean 'user'?"),
    ({"user": " "}, "some words for each of"),
    ({"user": 3}, "user=3, expected some words"),
    ({"user": "Assistant:"}, "must differ"),
  ],
)
def test_a_wrong_template_is_refused(section, problem):
  with pytest.raises(errors.UserError, match=re.escape(problem)):
    chat.read_template(section)
