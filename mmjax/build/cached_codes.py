"""Codes of a tokenizer for a data set: writing them, and whose they are."""

from collections.abc import Callable
from concurrent import futures
from pathlib import Path
from typing import Any

import ml_collections as mlc
import numpy as np

from mmjax.build import checkpoints, initial, pipelines, tokenizer_ids
from mmjax.build import experiment as experiment_lib
from mmjax.core import errors
from mmjax.data import codes, pipeline
from mmjax.train import predict
from mmjax.train.state import TrainState

Progress = Callable[[int, int], None]  # Examples done, of how many.
# Pictures as they are, for a source of which no config says what to make.
WHOLE = dict(
  crop_scale=(1.0, 1.0), flip=False, color_jitter=0.0, hue_jitter=0.0, blur=0.0
)


class Coder:
  """A tokenizer, and the data whose codes it makes."""

  def __init__(
    self,
    made: experiment_lib.Experiment,
    state: TrainState,
    data: mlc.ConfigDict,
    modality: str,
  ):
    """Finds the tokenizer of a modality.

    Args:
      made: whose model has the tokenizer.
      state: its parameters.
      data: config whose group `data` says what is made of the source.
      modality: "image", "video" or "audio"; "" = the first that there is.

    Raises:
      UserError: no tokenizer, no such data, or not the same for each epoch.
    """
    self._config = data
    known = [name for name in codes.FIX if data.data[name]]
    self.modality = modality or (known[0] if known else "image")
    if self.modality not in known:
      raise errors.unknown("modality of the data", self.modality, known)
    ids = tokenizer_ids.computed(made, state)
    if self.modality not in ids:
      raise errors.UserError(
        f"The model has no tokenizer of {self.modality!r}: set "
        "config.model.visual_tokenizer or config.model.tokenizers."
        f"{self.modality}."
      )
    self.tokenizer = ids[self.modality]
    self._variables = {"params": state.params, **state.collections}
    self._predict = predict.Predictor(
      made.parts.model,
      made.mesh,
      made.rules,
      frozenset({self.modality, f"{self.modality}_mask"}),
    )
    self._batch_size = made.batch_size
    # One object, so that it is compiled once.
    self._fn = lambda apply, batch: (
      apply("codes", self.modality),
      apply("codebook_size", self.modality),
    )

  def write(self, split: str, out: str, on_progress: Progress) -> Path:
    """Writes the codes of a split; goes on where it was left.

    Raises:
      UserError: no example can be used, they are not the same in each epoch,
        or there are codes of something else.
    """
    source = pipelines.make_pipeline(self._config, self._only(split))
    view = codes.view(source.transforms, self.modality)
    index, example = self._first(source)
    first, num_codes = self._codes([example])
    features = codes.Features(
      modality=self.modality,
      tokenizer=self.tokenizer,
      num_codes=num_codes,
      num_tokens=first.shape[1],
      length=len(source),
      source=source.name,
      split=split,
      view=view,
      first_index=index,
      first_hash=codes.content_hash(example[self.modality]),
    )

    def codes_of(start, stop):
      rows = np.zeros((stop - start, features.num_tokens), np.int32)
      with futures.ThreadPoolExecutor(2) as pool:
        for low in range(start, stop, self._batch_size):
          here = range(low, min(low + self._batch_size, stop))
          made = list(pool.map(lambda i: self._example(source, i), here))
          good = [i for i, example in zip(here, made, strict=True) if example]
          if good:  # Nobody asks for the codes of broken examples.
            found, _ = self._codes([example for example in made if example])
            rows[np.asarray(good) - start] = found
          on_progress(here.stop, len(source))
      return rows

    folder = codes.write(out, features, codes_of)
    on_progress(len(source), len(source))
    return folder

  def _only(self, split):
    """Changes that leave the modality alone: other fields may be missing."""
    data = self._config.data
    others = {
      name: None
      for name, section in data.items()
      if isinstance(section, mlc.ConfigDict)
      and name not in (self.modality, "columns")
    }
    optional = tuple(m for m in data.optional if m == self.modality)
    return {**others, "split": split, "optional": optional, "extra": ()}

  def _first(self, source):
    for index in range(min(pipeline.FIRST_TRIES, len(source))):
      if example := self._example(source, index):
        return index, example
    raise errors.UserError(
      f"None of the first examples of {source.name!r} can be used.\n"
      f"{source.bad.describe()}"
    )

  def _example(self, source, index) -> dict[str, Any] | None:
    """What evaluation makes of an example; None if it is broken."""
    example = source.try_example(index, 0, 0, False)
    if example is None:
      return None
    trained = source.example(index, 1, 0, True)
    for field in (self.modality, f"{self.modality}_mask"):
      if not np.array_equal(example.get(field, 0), trained.get(field, 0)):
        raise errors.UserError(
          f"Example {index} of {source.name!r} is not the same in training and "
          f"in evaluation, so its codes cannot be cached. A recording must "
          f"not be longer than config.data.audio.max_secs."
        )
    return example

  def _codes(self, examples: list[dict[str, Any]]) -> tuple[np.ndarray, int]:
    """Codes of examples, b n, and of how many."""
    missing = self._batch_size - len(examples)  # Compiled for one size.
    filled = examples + [examples[-1]] * missing
    batch = {
      name: np.stack([example[name] for example in filled])
      for name in (self.modality, f"{self.modality}_mask")
      if name in examples[0]
    }
    found, number = self._predict(self._variables, self._fn, batch)
    return found[: len(examples)], int(number)


def of_run(
  config: mlc.ConfigDict, workdir: Path, data: mlc.ConfigDict, modality: str
) -> Coder:
  """A coder with the tokenizer that was trained in a workdir.

  Args:
    config: of the workdir.
    workdir: of the tokenizer.
    data: config whose data are coded.
    modality: see `Coder`.
  """
  made, _, state = checkpoints.restore(config, workdir, "latest")
  return Coder(made, state, data, modality)


def of_config(config: mlc.ConfigDict, modality: str) -> Coder:
  """A coder with the tokenizer that a config starts from.

  Raises:
    UserError: it would be random.
  """
  made = experiment_lib.prepare(config)
  model, start = made.parts.model, config.init.from_checkpoint
  parts = [model.visual_tokenizer, *(model.tokenizers or {}).values()]
  if not start and any(p and getattr(p, "learned", True) for p in parts):
    raise errors.UserError(
      "The config's tokenizer is not trained yet: name the workdir of one that "
      "is with --tokenizer, or set config.init.from_checkpoint to it."
    )
  state, _ = initial.initial_state(config, made)
  return Coder(made, state, config, modality)


def without_codes(config: mlc.ConfigDict) -> mlc.ConfigDict:
  """A copy of a config whose data have no cached codes yet."""
  copy = mlc.ConfigDict(config.to_dict())
  with copy.unlocked():
    copy.data.codes = None
    for task in copy.tasks.values():
      if "codes" in task.data:
        del task.data["codes"]
  return copy


def of_source(config: mlc.ConfigDict, source: str, path: str) -> mlc.ConfigDict:
  """A copy of a config with another source, and pictures and clips whole."""
  copy = without_codes(config)
  with copy.unlocked():
    if source:
      copy.data.source = source
    if path:
      copy.data.path = path
    for name in ("image", "video"):
      if copy.data[name]:
        copy.data[name].update(WHOLE)
  return copy
