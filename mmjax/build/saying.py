"""What `mmjax generate` does: inputs of a user -> lines of text."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import ml_collections as mlc
import numpy as np

from mmjax.build import abilities, chat, checkpoints, inputs
from mmjax.build import experiment as experiment_lib
from mmjax.build.generation import Generator
from mmjax.build.prompts import PROMPT, filled
from mmjax.core import errors
from mmjax.core.interfaces import Params
from mmjax.generate.settings import GenerationSettings
from mmjax.objectives import conversation

SHOWN = 5  # Classes, the most likely first.


def say(
  config: mlc.ConfigDict,
  workdir: Path,
  step: str,
  given: inputs.Inputs,
  settings: GenerationSettings,
  *,
  answers: Sequence[str] = (),
  num: int = 1,
) -> Iterator[str]:
  """Restores a run and yields what its model says, in pieces to print.

  Args:
    config: of the run.
    workdir: its folder.
    step: "latest", "best" or a number.
    given: files and the prompt.
    settings: how a text is said.
    answers: to choose from, instead of saying one.
    num: texts to say, by strategy "sample" or "beam".

  Raises:
    UserError: the model cannot do this, or not with these inputs.
  """
  _check_num(settings, num, answers)
  made, _, state = checkpoints.restore(config, workdir, step)
  variables = state.ema_variables
  objectives = made.parts.objectives
  if not abilities.says_text(objectives, settings.objective):
    name = abilities.find_classes(objectives, settings.objective)
    if name:
      yield from _classes(made, name, variables, given, answers)
      return
  generator = Generator(made, settings)
  batch, said_before = _batch(made, generator, given)
  if answers:
    yield from _ranked(
      answers, generator.log_likelihoods(variables, batch, answers)[0]
    )
  elif num > 1:
    yield from _several(generator, variables, batch, said_before, num)
  else:
    start = generator.tokenizer.decode(said_before)
    for (piece,) in generator.stream(variables, batch, before=said_before):
      yield start + piece
      start = ""
    yield "\n"


def _check_num(settings, num, answers):
  if num < 1:
    raise errors.UserError(f"num={num}, expected 1 or more.")
  if num > 1 and (settings.strategy == "greedy" or answers):
    raise errors.UserError(
      f"num={num}: there is one answer only. Use strategy='sample' or 'beam' "
      "for several."
    )
  if settings.strategy == "beam" and num > settings.beam_size:
    raise errors.UserError(
      f"num={num}, but the search keeps beam_size={settings.beam_size} texts."
    )


def _batch(
  made: experiment_lib.Experiment, generator: Generator, given: inputs.Inputs
) -> tuple[dict[str, Any], list[int]]:
  """The batch of one row, and the ids that the said text continues."""
  if generator.decoding.mode == conversation.MODE:
    batch = chat.question(made, generator.settings, given.files, given.prompt)
    return batch, []
  objectives = made.parts.objectives
  name = abilities.find_decoding(objectives, generator.settings.objective)
  source = made.parts.pipelines[objectives[name].task]
  modalities = generator.decoding.given
  batch = inputs.make_batch(source, modalities, given)
  ids: list[int] = []
  if "text" not in modalities:  # The prompt is what the decoder goes on with.
    ids = generator.tokenizer.pieces(given.prompt) if given.prompt else []
    prompt = [generator.tokenizer.bos_id, *ids]
    batch[PROMPT] = np.array([prompt], np.int32)
  return batch, ids


def _several(generator, variables, batch, before, num):
  decode = generator.tokenizer.decode
  if generator.settings.strategy == "beam":
    for ids in generator.tokens(variables, batch, num)[0]:
      yield decode([*before, *ids]) + "\n"
    return
  batch = {name: np.repeat(value, num, axis=0) for name, value in batch.items()}
  pieces = list(generator.stream(variables, batch, before=before))
  for row in zip(*pieces, strict=True):
    yield decode(before) + "".join(row) + "\n"


def _ranked(names: Sequence[str], scores: np.ndarray) -> Iterator[str]:
  """Names by probability among each other."""
  scores = scores - np.max(scores)
  probabilities = np.exp(scores) / np.sum(np.exp(scores))
  for i in np.argsort(-probabilities, kind="stable"):
    yield f"{probabilities[i]:6.1%}  {names[i]}\n"


def _classes(made, name, variables: Params, given, answers) -> Iterator[str]:
  """The most likely classes, or those of `answers`."""
  item = made.parts.objectives[name]
  objective, source = item.objective, made.parts.pipelines[item.task]
  names = source.class_names
  for answer in answers:
    if answer not in names:
      raise errors.unknown("class", answer, names)
  modalities = tuple(sorted({objective.modality, *objective.given}))
  if given.prompt and "text" not in modalities:
    raise errors.UserError(
      f"--prompt={given.prompt!r}: the model reads no text, it looks at "
      f"{list(modalities)} and picks a class."
    )
  batch = inputs.make_batch(source, modalities, given)

  def logits(apply, batch):
    del batch
    fused = [objective.given] if objective.given else []
    pooled = apply("pool", objective.modality, *fused)
    return apply("head", objective.head, pooled)

  said = made.predictor(variables, logits, filled(batch, made.mesh))[0]
  squash = jax.nn.sigmoid if objective.multi_label else jax.nn.softmax
  values = np.asarray(squash(said.astype(np.float32)))
  order = np.argsort(-values, kind="stable").tolist()
  for i in [i for i in order if names[i] in answers] or order[:SHOWN]:
    yield f"{values[i]:6.1%}  {names[i]}\n"
