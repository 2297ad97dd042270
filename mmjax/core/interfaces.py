"""The contracts between rooms: what a plug-in has to look like.

An objective calls the model through `Apply` and never imports it:

  sequence = apply("encode", "image", view="masked")  # Sequence
  fused = apply("fuse", ("image", "text"))            # {modality: Sequence}
  z = apply("project", "text")                        # b s, unit length
  codes = apply("codes", "image")                     # b n, int32
  pixels = apply("patches", "image")                  # b n q
  whole = apply("restore", "image", view="masked")    # Sequence, none dropped
  logits = apply("head", "mlm", x)                    # ... v
  decoded = apply("decode", "text", ("image",))       # Sequence, causal
  other = apply.replaced(image=pixels)                # Apply, on other fields

Calls that differ in neither method, modality nor view are computed once in a
step, however many objectives ask (`mmjax.objectives.forward_once`). What is
computed `by="ema"`, the moving average of the parameters, or `by="teacher"`,
the frozen model in `config.model.teacher`, is a target: no gradient reaches it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from flax import struct

from mmjax.core.batch import Batch, FieldSpec

Params = Mapping[str, Any]


@struct.dataclass
class LossTerm:
  """A loss before the division: sum over what counts, and how much counts.

  Nobody divides before everything was summed over devices, micro-batches and
  hosts; so a ragged batch gives the same loss however it is split.
  """

  # Scalars of jax or numpy; tree functions put other leaves in their place.
  total: Any  # Sum of the losses, nats.
  weight: Any  # Number of things summed: tokens, patches, rows.

  @property
  def mean(self) -> jax.Array:
    """The mean, 0 where nothing counts; its gradient is finite there too."""
    safe = jax.numpy.where(self.weight > 0, self.weight, 1.0)
    return jax.numpy.where(self.weight > 0, self.total / safe, 0.0)


Metrics = dict[str, LossTerm]  # Means, undivided like losses.


@runtime_checkable
class Apply(Protocol):
  """Calls a method of the model by name."""

  def __call__(
    self, method: str, *args: Any, view: str = "clean", by: str = "model"
  ) -> Any: ...


@dataclass(frozen=True)
class ModelInfo:
  """Sizes of the model that an objective may need, known before `init`."""

  embed_dim: int  # Width of the (fused) sequences.
  vocab_size: int = 0  # Text tokens; 0 without a text encoder.
  codebook_size: int = 0  # Visual codes; 0 without a visual tokenizer.
  modalities: tuple[str, ...] = ()
  # Channels of each encoder, and numbers that its patches consist of.
  widths: Mapping[str, int] = field(default_factory=dict)
  patch_dims: Mapping[str, int] = field(default_factory=dict)
  teacher: "ModelInfo | None" = None  # Of the frozen model to learn from.
  # Codes by modality, where a tokenizer of its own or cached codes give them.
  codebook_sizes: Mapping[str, int] = field(default_factory=dict)

  def num_codes(self, modality: str) -> int:
    """Codes of a modality; 0 without a tokenizer."""
    return self.codebook_sizes.get(modality, self.codebook_size)


@runtime_checkable
class Objective(Protocol):
  """Something to learn: a frozen dataclass, called inside the jitted step.

  An objective may also have `couples_examples: bool` (default False): True
  when the loss of one example depends on the others of its batch, so that
  micro-batches are not the same as one large batch (see `CoupledObjective`);
  `needs_ema` or `needs_teacher`: True if it asks for results `by` these; with
  `teacher_heads(info)`, like `heads`, of the teacher's that it asks for;
  `shared_space`, a mapping of options that the model's shared space has to
  have for it; and
  `check_metrics(row) -> str | None`, called with its own numbers whenever they
  are logged: what it returns stops the run, as its message; and
  `decoding: Decoding | None`, how the text that it predicts is said.
  """

  def __call__(
    self, apply: Apply, batch: Batch, *, rng: jax.Array, train: bool
  ) -> tuple[LossTerm, Metrics]:
    """Returns the loss of a batch and what to log beside it."""
    ...

  def fields(self, info: ModelInfo) -> Mapping[str, FieldSpec]:
    """Fields of the batch that this objective reads."""
    ...

  def heads(self, info: ModelInfo) -> Mapping[str, Any]:
    """Heads that this objective brings: name -> Linen module or config.

    A config is `{"name": registered head, **its fields}`, which
    `mmjax.models.HEADS` resolves; two objectives may share a head of the same
    name and fields.
    """
    ...

  def chance(self, info: ModelInfo, batch_size: int) -> float | None:
    """Loss in nats of a model that knows nothing; None if undefined."""
    ...


@dataclass(frozen=True)
class Decoding:
  """How a text is said word by word: what an objective has taught a decoder.

  A decoder continues a prompt, the tokens in the batch field `prompt`, if it
  has one, or begins after bos. Fields `prompt_<x>` stand for `<text>_<x>`.
  """

  text: str  # Field that is said, and name of the decoder.
  given: tuple[str, ...] = ()  # Modalities that it looks at.
  mode: str = "causal"  # "prefix": the tokens of the prompt see each other.
  fused: bool = False  # It looks at them after their fusion.
  head: str = "lm"  # Gives the logits.


@runtime_checkable
class CoupledObjective(Objective, Protocol):
  """An objective over a whole batch that may come in micro-batches.

  It has `couples_examples` and does its work in two stages, so that the
  gradient is that of the whole batch (`mmjax.train.grad_cache`):

    def __call__(self, apply, batch, *, rng, train):
      features = self.features(apply, batch)
      return self.from_features(features, apply, batch, rng=rng, train=train)
  """

  couples_examples: bool

  def features(self, apply: Apply, batch: Batch) -> Any:
    """A tree of floating-point arrays, leading axis = example.

    An example's features depend on no other example. Called twice for each
    micro-batch, with the same dropout.
    """
    ...

  def from_features(
    self,
    features: Any,
    apply: Apply,
    batch: Batch,
    *,
    rng: jax.Array,
    train: bool,
  ) -> tuple[LossTerm, Metrics]:
    """What `__call__` returns, of features of the whole batch.

    May ask the model for what depends on no example, such as
    `apply("temperature")`; the encoders would run on the whole batch at once.
    """
    ...


@dataclass(frozen=True)
class Artifact:
  """Something to look at, made by an evaluator and shown in the report.

  kind        data (all numpy or plain Python)
  "pairs"     {"columns": [name], "images": uint8 rows columns h w c,
               "captions": [str per row] (optional)}
  "gallery"   {"rows": [{"query": str | uint8 h w c, "truth": str,
               "results": [{"image": uint8 h w c, "caption": str,
               "score": float, "right": bool}]}]}
  "masked_text" {"rows": [[{"token": str, "hidden": bool, "predicted": str,
               "right": bool}]]}
  "matrix"    {"values": float rows columns, "row_names": [str],
               "column_names": [str]}
  "bars"      {"names": [str], "values": [float]}
  "table"     {"columns": [str], "rows": [[str]]}, one cell per column
  """

  name: str  # Unique within the evaluator, a file name: letters, digits, _.
  kind: str
  title: str
  data: Mapping[str, Any]
  caption: str = ""  # One sentence: how to read it.


@runtime_checkable
class Predict(Protocol):
  """Runs `fn(apply, batch)` jitted, with `train=False`, on a host batch.

  `fn` has to be the same object on each call, or it is compiled again.
  Returns numpy arrays of the global batch.
  """

  def __call__(
    self,
    params: Params,
    fn: Callable[[Apply, Batch], Any],
    batch: Mapping[str, np.ndarray],
  ) -> Any: ...


@runtime_checkable
class Generate(Protocol):
  """Says texts for the examples of a host batch.

  What the batch holds of the text itself is not looked at, except `prompt`,
  see `Decoding`. `params` are all variables, as for `Predict`; there is one
  text for each row of the global batch, fillers included.
  """

  def __call__(
    self, params: Params, batch: Mapping[str, np.ndarray]
  ) -> list[str]: ...

  def choose(
    self,
    params: Params,
    batch: Mapping[str, np.ndarray],
    answers: Sequence[str],
  ) -> list[str]:
    """Of some answers, the most likely one for each example."""
    ...


@runtime_checkable
class Evaluator(Protocol):
  """Something to measure: a frozen dataclass, run between training steps.

  May also have `pictures(predict, params) -> Iterator[Artifact]`; and
  `reads() -> {name of the pass: fields of the batch}`: data that lack one are
  refused before the run starts.
  """

  def run(
    self, predict: Predict, params: Params
  ) -> Iterator[tuple[str, float]]: ...
