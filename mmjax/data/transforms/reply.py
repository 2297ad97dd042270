"""What a conversation is gone on with: to say a reply, and compare it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmjax.core import errors
from mmjax.core.batch import FieldSpec
from mmjax.data.transforms.conversation import PACKED, ConversationTransform


@dataclass(frozen=True, kw_only=True)
class ReplyTransform:
  """Adds `prompt`, all before the assistant's last turn, to be gone on with.

  That turn, and the message before it, are the texts `reply` and `question`,
  for evaluators of what a model says.
  """

  conversation: ConversationTransform

  def specs(self) -> dict[str, FieldSpec]:
    shape = (self.conversation.max_tokens,)
    specs = {
      "prompt": FieldSpec(shape, "int32", "t", "token ids"),
      "prompt_mask": FieldSpec(shape, "bool", "t", "True = not padding"),
    }
    if self.conversation.max_images:
      specs["prompt_places"] = FieldSpec(
        shape, "int32", "t", "which token of the pictures; -1 = a word"
      )
    return specs

  def __call__(
    self,
    example: Mapping[str, Any],
    rng: np.random.Generator,
    *,
    train: bool,
  ) -> dict[str, Any]:
    """Adds the fields.

    Raises:
      UserError: a row holds several conversations.
    """
    del rng, train
    if PACKED in example:
      raise errors.UserError(
        "data.conversation.reply needs one conversation a row: pack=False."
      )
    make = self.conversation
    messages = example["messages"][: make.fitting(example["messages"])[1]]
    before = make.start()
    for message in messages[:-1]:
      before = make.extended(before, message)
    before = make.opened(before, messages[-1].role)
    room = make.max_tokens - len(before.ids)
    fields = {
      "prompt": np.array(before.ids + [make.tokenizer.pad_id] * room, np.int32),
      "prompt_mask": np.arange(make.max_tokens) < len(before.ids),
      "prompt_places": np.array(before.places + [-1] * room, np.int32),
      "question": messages[-2].text if len(messages) > 1 else "",
      "reply": messages[-1].text,
    }
    return {**example, **fields}
