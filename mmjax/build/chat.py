"""A conversation with a trained model: what was said, and its next reply."""

import dataclasses
from collections.abc import Generator as Pieces
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_collections as mlc
import numpy as np

from mmjax.build import checkpoints
from mmjax.build import experiment as experiment_lib
from mmjax.build.generation import Generator
from mmjax.core import errors
from mmjax.core.interfaces import Params
from mmjax.data import chat
from mmjax.data.transforms.conversation import ConversationTransform
from mmjax.generate.settings import GenerationSettings
from mmjax.objectives.conversation import Conversation

LEAST_ROOM = 8  # Tokens of a prompt without a picture.


class Chat:
  """Keeps the history; asks the model for one reply after the other.

  Args:
    experiment: of a model that has learned the objective `conversation`.
    params: all its variables.
    settings: how replies are said; `max_tokens` of them.

  Raises:
    UserError: no objective of the model is a conversation, or replies would
      leave no room for questions.
  """

  def __init__(
    self,
    experiment: experiment_lib.Experiment,
    params: Params,
    settings: GenerationSettings | None = None,
  ):
    settings = settings or GenerationSettings()
    name, task = find_conversation(experiment, settings.objective)
    settings = dataclasses.replace(settings, objective=name)
    self._params = params
    self._generator = Generator(experiment, settings)
    self._transform = _transform(experiment, task)
    self._room = self._generator.context - settings.max_tokens
    if self._room < LEAST_ROOM + self._transform.image_tokens:
      raise errors.UserError(
        f"max_tokens={settings.max_tokens} for a reply leaves {self._room} of "
        f"the {self._generator.context} tokens that the model reads: too few "
        f"for a picture ({self._transform.image_tokens}) and a question."
      )
    self.left_out = 0  # Messages that the last question pushed out.
    self._history: list[chat.Message] = []
    self._shown: list[chat.Picture] = []  # With the next question.

  def show(self, file: str) -> None:
    """Shows a picture with the next question.

    Raises:
      UserError: it can't be read, or the model takes no more pictures.
    """
    if len(self._shown) >= self._transform.max_images:
      raise errors.UserError(
        f"The model reads {self._transform.max_images} pictures at a time."
      )
    try:
      encoded = Path(file).expanduser().read_bytes()
      field = self._transform.image.field
      pixels = self._transform.image.prepare({field: encoded})[field]
    except (OSError, ValueError) as e:
      raise errors.UserError(f"Cannot show {file!r}: {e}") from e
    self._shown.append(chat.Picture(pixels))

  def reset(self) -> None:
    """Forgets all that was said and shown."""
    self._history, self._shown, self.left_out = [], [], 0

  def ask(self, text: str) -> Pieces[str, None, None]:
    """The reply, piece by piece; what of it was taken stands in the history.

    Raises:
      UserError: as `read`.
    """
    return self._reply(self.read(text))

  def read(self, text: str) -> dict[str, Any]:
    """Adds a question to the history; a batch of what there is to go on from.

    Raises:
      UserError: nothing is asked, or it doesn't fit.
    """
    if not text.strip() and not self._shown:
      raise errors.UserError("Nothing is asked: say or show something.")
    parts = (*self._shown, *((text,) if text.strip() else ()))
    messages = [*self._history, chat.Message("user", parts)]
    tokens, kept = self._transform.prompt(messages, self._room)
    self.left_out = len(messages) - len(kept)
    self._history, self._shown = kept, []
    return self._batch(tokens)

  def _reply(self, batch):
    said = ""
    try:
      for (piece,) in self._generator.stream(self._params, batch):
        said += piece
        yield piece
    finally:
      self._history.append(chat.Message(chat.ASSISTANT, (said,)))

  def _batch(self, tokens) -> dict[str, Any]:
    fields = {"prompt": np.array(tokens.ids, np.int32)}
    if self._transform.max_images:
      fields["prompt_places"] = np.array(tokens.places, np.int32)
      rng = np.random.default_rng(0)  # Nothing is random here.
      fields |= self._transform.pixels(tokens.pictures, rng, train=False)
    return {name: value[None] for name, value in fields.items()}


def find_conversation(
  experiment: experiment_lib.Experiment, name: str = ""
) -> tuple[str, str]:
  """An objective that is a conversation, and its task.

  Args:
    experiment: of the model.
    name: of the objective; "" = the first.

  Raises:
    UserError: there is none.
  """
  objectives = experiment.parts.objectives
  known = {
    key: item.task
    for key, item in objectives.items()
    if isinstance(item.objective, Conversation)
  }
  if not known:
    kinds = sorted(type(i.objective).__name__ for i in objectives.values())
    raise errors.UserError(
      f"This model has not learned to chat: its objectives are {kinds}. "
      "Fine-tune it with the objective 'conversation', as "
      "configs/finetune/chat.py does."
    )
  if name and name not in known:
    raise errors.unknown("objective that is a conversation", name, known)
  name = name or next(iter(known))
  return name, known[name]


def _transform(experiment, task) -> ConversationTransform:
  for transform in experiment.parts.pipelines[task].transforms:
    if isinstance(transform, ConversationTransform):
      return transform
  raise errors.UserError(
    f"The data of task {task!r} are made by transforms of your own; a chat "
    "needs config.data.conversation."
  )


def question(
  experiment: experiment_lib.Experiment,
  settings: GenerationSettings,
  files: Mapping[str, str],
  text: str,
) -> dict[str, Any]:
  """A batch of one question, the first of a conversation.

  Args:
    experiment: of the model.
    settings: how the reply is said.
    files: paths by modality; of a picture at most.
    text: what is asked.

  Raises:
    UserError: another file than a picture, or as `Chat`.
  """
  chat_with = Chat(experiment, {}, settings)
  for modality, file in files.items():
    if modality != "image":
      raise errors.UserError(
        f"The model talks about pictures: leave --{modality} out."
      )
    chat_with.show(file)
  return chat_with.read(text)


def open_chat(
  config: mlc.ConfigDict,
  workdir: Path,
  step: str,
  settings: GenerationSettings,
) -> Chat:
  """A conversation with the model of a run.

  Raises:
    UserError: no such run or checkpoint, or one that has not learned to chat.
  """
  made, _, state = checkpoints.restore(config, workdir, step)
  return Chat(made, state.ema_variables, settings)
