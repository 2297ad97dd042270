"""Vectors of texts and files, by the encoders of a trained model.

made, step, state = checkpoints.restore(config, workdir, "latest")
embed = Embedder(made, state.ema_variables)
vectors = embed("text", [embed.fields("text", t) for t in ("red", "blue")])
vectors["text"]  # b d, float32
"""

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from mmjax.build import experiment as experiment_lib
from mmjax.build import inputs
from mmjax.build.embedding_inputs import KINDS
from mmjax.build.prompts import COMPANIONS
from mmjax.core import errors, trees
from mmjax.core.interfaces import Params
from mmjax.data import pipeline
from mmjax.data import tokenizer as tokenizer_lib
from mmjax.data.transforms import Transform, conversation
from mmjax.models.encoders.text import TextStem
from mmjax.models.layers import norm, pooling
from mmjax.sharding import mesh as mesh_lib
from mmjax.train import predict

# Options of pooling that have parameters.
LEARNED = ("tanh", "norm", "projection")
POOLS = ("shared", "pooled", "mean", "first", "tokens")
SHORTEST = 16  # Tokens, to which texts are padded at least.

Fields = Mapping[str, np.ndarray]  # Of one example.


@dataclass(frozen=True, kw_only=True)
class EmbedSettings:
  """What becomes of the tokens of an encoder.

  Raises:
    UserError: no such pool, or no rows.
  """

  # "shared": in the space that modalities share, of unit length; "pooled": as
  # the encoder pools; "mean" of the tokens that count, learned ones left out;
  # "first" token: the learned class token of an encoder that has one; "tokens":
  # all, with a mask. "" = shared, of a model that has learned a shared space,
  # else pooled.
  pool: str = ""
  normalize: bool = False  # To unit length.
  batch_size: int = 32  # Rows that are computed at once.
  task: str = ""  # Whose transforms; "" = of each modality the first.

  def __post_init__(self):
    if self.pool and self.pool not in POOLS:
      raise errors.unknown("pool", self.pool, POOLS)
    if self.batch_size < 1:
      raise errors.UserError(
        f"batch_size={self.batch_size}, expected 1 or more."
      )


class Embedder:
  """Embeds examples of one modality at a time, in batches of one size."""

  def __init__(
    self,
    made: experiment_lib.Experiment,
    variables: Params,
    settings: EmbedSettings | None = None,
  ):
    """Finds what the model reads.

    Args:
      made: of the trained model.
      variables: of the model, all collections.
      settings: see there; rows are rounded up to what the mesh divides.

    Raises:
      UserError: no such task, or a pool that the model has not learned.
    """
    self.settings = settings or EmbedSettings()
    self._model = made.parts.model
    self._variables = variables
    self._names = list(trees.flatten(variables["params"]))
    self._sources = {
      name: source
      for name, source in _sources(made, self.settings.task).items()
      if self._has(f"encoders_{name}/")
    }
    ways = mesh_lib.batch_ways(made.mesh)
    self.batch_size = -(-self.settings.batch_size // ways) * ways
    shared = [m for m in self.modalities if "shared" in self.offered(m)]
    self.pool = self.settings.pool or ("shared" if shared else "pooled")
    self._functions = {  # One object each, so that it is compiled once.
      name: functools.partial(
        _vectors,
        modality=name,
        pool=self.pool,
        normalize=self.settings.normalize,
        has_cls=_kind(self._model.encoders[name]) in ("cls", "cls_mean"),
      )
      for name in self.modalities
    }
    self._predict = predict.Predictor(
      self._model,
      made.mesh,
      made.rules,
      frozenset(m + c for m in self.modalities for c in ("", *COMPANIONS)),
    )

  @property
  def modalities(self) -> tuple[str, ...]:
    """What can be embedded."""
    return tuple(sorted(self._sources))

  def offered(self, modality: str) -> list[str]:
    """Pools whose parameters the model has learned for a modality."""
    return pools(modality, self._model.encoders[modality], self._names)

  def check(self, modalities: Iterable[str]) -> None:
    """Checks that these can be embedded.

    Raises:
      UserError: no encoder, or a pool that it does not offer.
    """
    for name in sorted(modalities):
      if name not in self._sources:
        raise errors.UserError(
          f"The model has no encoder of {name!r}, it reads "
          f"{list(self.modalities)}. --modality says what to embed of the "
          "inputs."
        )
      if self.pool not in self.offered(name):
        raise errors.UserError(
          f"--pool={self.pool}: the model has not learned it for {name!r}. "
          f"Known: {self.offered(name)}."
        )

  def fields(self, modality: str, given: str | bytes) -> Fields:
    """What the model reads of a text, or of the content of a file.

    Raises:
      UserError: the config of the run is wrong.
      ValueError: no such picture, recording, clip.
    """
    _, transform = self._sources[modality]
    example = {inputs.field_of(transform): given}
    try:
      made = transform(example, np.random.default_rng(0), train=False)
    except (OSError, LookupError) as e:
      raise ValueError(f"{type(e).__name__}: {e}") from e
    known = [modality, *(modality + c for c in COMPANIONS)]
    specs = transform.specs()
    return {name: np.asarray(made[name]) for name in known if name in specs}

  def is_cut(self, modality: str, given: str | bytes, fields: Fields) -> bool:
    """Whether a text is longer than what the model reads of it."""
    source, _ = self._sources[modality]
    mask = fields.get(f"{modality}_mask")
    if not isinstance(given, str) or source.tokenizer is None or mask is None:
      return False
    if not mask.all():
      return False
    if len(given) > len(mask) * tokenizer_lib.MOST_CHARACTERS:
      return True
    return source.tokenizer.num_tokens(given) > len(mask)

  def __call__(
    self, modality: str, rows: Sequence[Fields]
  ) -> dict[str, np.ndarray]:
    """Vectors of up to `batch_size` examples, b d, by the modality's name.

    By "tokens" all of them, b n d, and `<modality>_mask`, b n.
    """
    missing = self.batch_size - len(rows)  # Compiled for one size.
    filled = [*rows, *[rows[-1]] * missing]
    batch = {name: np.stack([r[name] for r in filled]) for name in rows[0]}
    batch = self._cut(modality, batch)
    function = self._functions[modality]
    made = self._predict(self._variables, function, batch)
    return {modality + k: v[: len(rows)] for k, v in made.items()}

  def _cut(self, modality, batch):
    """Texts without most of their padding: to one of a few lengths.

    Each is a power of two, and a program of its own.
    """
    mask = batch.get(f"{modality}_mask")
    stem = getattr(self._model.encoders[modality], "stem", None)
    if not isinstance(stem, TextStem) or stem.attend_padding or mask is None:
      return batch
    if self.pool == "tokens":  # All are asked for.
      return batch
    _, transform = self._sources[modality]
    longest = np.flatnonzero(mask.any(axis=0)).max(initial=0) + 1
    width = max(SHORTEST, 1 << int(longest - 1).bit_length())
    specs = transform.specs()
    return {
      name: x[:, :width] if specs[name].axes == "t" else x
      for name, x in batch.items()
    }

  def _has(self, start):
    return any(name.startswith(start) for name in self._names)


def pools(modality: str, encoder: Any, params: Iterable[str]) -> list[str]:
  """Those whose parameters, by their names, the model has learned."""

  def has(start):
    return any(name.startswith(start) for name in params)

  options = [getattr(encoder, f"pool_{name}", False) for name in LEARNED]
  learns = _kind(encoder) == "map" or any(options)
  lacking = {
    "shared": not has(f"shared_space/projections_{modality}/"),
    "pooled": learns and not has(f"encoders_{modality}/pooling/"),
  }
  return [pool for pool in POOLS if not lacking.get(pool)]


def _kind(encoder):
  """How it pools; "" of one of the user's own that does not say."""
  return getattr(encoder, "pool_kind", "")


def _vectors(apply, batch, *, modality, pool, normalize, has_cls):
  del batch
  made = {}
  if pool in ("shared", "pooled"):
    method = {"shared": "project", "pooled": "pool"}[pool]
    made[""] = apply(method, modality)
  elif pool == "tokens":
    sequence = apply("encode", modality)
    made = {"": sequence.x, "_mask": sequence.mask}
  elif pool == "mean":
    made[""] = pooling.Pool("mean").apply({}, apply("encode", modality))
  else:
    sequence = apply("encode", modality)
    made[""] = (sequence.x if has_cls else sequence.content)[:, 0]
  make = norm.unit_length if normalize else lambda x: x.astype(jnp.float32)
  return {**made, "": make(made[""])}


def _sources(made, task) -> dict[str, tuple[pipeline.Pipeline, Transform]]:
  """What makes the field of each modality that the model encodes."""
  pipelines = made.parts.pipelines
  if task and task not in pipelines:
    raise errors.unknown("task", task, pipelines)
  found = {}
  for source in [pipelines[task]] if task else pipelines.values():
    for transform in _singles(source.transforms):
      for name in transform.specs():
        if name in made.parts.model.encoders and name in KINDS:
          if hasattr(transform, "field"):
            found.setdefault(name, (source, transform))
  return found


def _singles(transforms: Iterable[Any]) -> Iterator[Any]:
  """Transforms of one example that has the field."""
  for transform in transforms:
    if isinstance(transform, conversation.ConversationTransform):
      yield transform.image
    elif hasattr(transform, "transforms"):  # Optional, or several to a row.
      yield from _singles(transform.transforms)
    else:
      yield transform
