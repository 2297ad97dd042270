import numpy as np
import pytest

from mmjax.core import errors
from mmjax.data import chat
from mmjax.data.tokenizer import TextTokenizer
from mmjax.data.transforms.conversation import ConversationTransform
from mmjax.data.transforms.image import ImageTransform
from mmjax.data.transforms.reply import ReplyTransform

PICTURE = chat.Picture(np.zeros((4, 4, 3), np.uint8))
MESSAGES = (
  chat.Message("user", (PICTURE, "What is this?")),
  chat.Message("assistant", ("a cat",)),
  chat.Message("user", ("Which group?",)),
  chat.Message("assistant", ("animals",)),
  chat.Message("user", ("Not answered",)),
)
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def conversation():
  return ConversationTransform(
    tokenizer=TextTokenizer.load("starter").with_chat(),
    max_tokens=60,
    patch_size=2,
    image=ImageTransform(size=4),
  )


def test_a_prompt_and_its_reply_are_the_conversation(conversation):
  reply = ReplyTransform(conversation=conversation)
  example = {"messages": MESSAGES}
  fields = reply(conversation(example, RNG, train=False), RNG, train=False)
  for name, spec in reply.specs().items():
    assert spec.matches(fields[name][None]), name
  n = int(fields["prompt_mask"].sum())
  assert fields["prompt_mask"][:n].all()
  np.testing.assert_array_equal(fields["prompt"][:n], fields["text"][:n])
  np.testing.assert_array_equal(
    fields["prompt_places"][:n], fields["text_places"][:n]
  )
  # What is left of the text is the reply, its eos included.
  rest = fields["text"][n:][fields["text_mask"][n:]]
  assert fields["text_answer"][n:][: len(rest)].all() and rest[-1] == 2
  assert conversation.tokenizer.decode(rest) == fields["reply"] == "animals"
  assert fields["question"] == "Which group?"


def test_a_packed_row_has_no_one_reply(conversation):
  with pytest.raises(errors.UserError, match="pack=False"):
    ReplyTransform(conversation=conversation)(
      {"conversations": ({"messages": MESSAGES},)}, RNG, train=False
    )
