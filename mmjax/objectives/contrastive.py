"""Contrastive alignment of modalities."""

import dataclasses
import itertools
import math

from mmjax.core import errors
from mmjax.core.batch import modality_fields
from mmjax.core.interfaces import LossTerm
from mmjax.objectives import losses, pairs

LOSSES = ("info_nce", "sigmoid")
NEGATIVES = ("global", "micro_batch")
# Where the temperature and the bias of "sigmoid" start, SigLIP 3.2.
SIGMOID_SCALE, SIGMOID_BIAS = 10.0, -10.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contrastive:
  """Pulls the sides of a pair together, pushes other pairs apart.

  Source: CLIP (Radford et al. 2021, arXiv:2103.00020), 2.3; with
  `loss="sigmoid"` SigLIP (Zhai et al. 2023, arXiv:2303.15343). Negatives are
  all other examples of the batch, over all devices and hosts, and over all
  micro-batches. With more than two modalities, the mean over all pairs that
  examples have.

  Raises:
    UserError: unknown loss or kind of negatives, fewer than two modalities,
      not one view for each, or a negative chunk.
  """

  modalities: tuple[str, ...] = ("image", "text")
  # View of each: "masked" for pictures leaves out their hidden patches, which
  # saves that share of the work (FLIP, Li et al. 2023, arXiv:2212.00794);
  # "second" for another look at the same thing: two views of "image" are
  # SimCLR's pairs (Chen et al. 2020, arXiv:2002.05709). Empty: all clean.
  views: tuple[str, ...] = ()
  loss: str = "info_nce"  # Or "sigmoid", which gives the model a bias too.
  # "micro_batch": with train.accumulate > 1 fewer negatives, and one forward
  # pass less.
  negatives: str = "global"
  chunk: int = 0  # Rows of similarities at a time on a device; 0 = automatic.

  def __post_init__(self):
    if self.loss not in LOSSES:
      raise errors.unknown("contrastive loss", self.loss, LOSSES)
    if self.chunk < 0:
      raise errors.UserError(f"chunk={self.chunk}, expected 0 or more.")
    if self.negatives not in NEGATIVES:
      raise errors.unknown("kind of negatives", self.negatives, NEGATIVES)
    if len(self.modalities) < 2:
      raise errors.UserError(
        f"modalities={self.modalities}, expected at least two."
      )
    if self.views and len(self.views) != len(self.modalities):
      raise errors.UserError(
        f"views={self.views}, expected one for each of {self.modalities}."
      )

  @property
  def couples_examples(self) -> bool:
    """Micro-batches differ from one large batch, unless that is wanted."""
    return self.negatives == "global"

  @property
  def shared_space(self) -> dict[str, float]:
    """Options that the model's shared space has to have."""
    if self.loss == "sigmoid":
      return {"init_scale": SIGMOID_SCALE, "init_bias": SIGMOID_BIAS}
    return {}

  def __call__(self, apply, batch, *, rng, train: bool):
    features = self.features(apply, batch)
    return self.from_features(features, apply, batch, rng=rng, train=train)

  def features(self, apply, batch):
    """Each modality's projections, all that couples the examples."""
    del batch
    views = self.views or ("clean",) * len(self.modalities)
    return [
      apply("project", modality, view=view)  # b s
      for modality, view in zip(self.modalities, views, strict=True)
    ]

  def from_features(self, features, apply, batch, *, rng, train: bool):
    """Loss and metrics of the whole batch."""
    del rng, train
    temperature = apply("temperature")
    sides = zip(self.modalities, features, strict=True)
    terms = []
    metrics = {k: losses.constant(v) for k, v in temperature.items()}
    for (first, a), (second, b) in itertools.combinations(sides, 2):
      mask = losses.counted(batch, (first, second), a)
      term, accuracy = self._compare(a, b, temperature, mask)
      terms.append(term)
      pair = "" if len(self.modalities) == 2 else f"/{first}_{second}"
      metrics[f"accuracy{pair}"] = accuracy
    total = LossTerm(sum(t.total for t in terms), sum(t.weight for t in terms))
    return total, metrics

  def _compare(self, a, b, temperature, mask):
    scale = temperature["scale"]
    if self.loss == "sigmoid":
      bias = temperature["bias"]
      return pairs.sigmoid(a, b, scale, bias, mask, chunk=self.chunk)
    return pairs.info_nce(a, b, scale, mask, chunk=self.chunk)

  def fields(self, info):
    del info
    specs = modality_fields(*self.modalities)
    for modality, view in zip(self.modalities, self.views, strict=False):
      if view == "second":
        specs[f"{modality}_second"] = specs[modality]
    return specs

  def heads(self, info):
    del info
    return {}

  def chance(self, info, batch_size):
    """Ln B: every example of the global batch is as likely.

    For "sigmoid", where all cosines are 0, as between random projections to
    many channels, and the logits are the bias z that they start at:
    ln(1 + exp(-z)) of an example's own pair, ln(1 + exp(z)) of B - 1 others.
    """
    del info
    if self.loss == "sigmoid":
      own, other = (
        math.log1p(math.exp(z)) for z in (-SIGMOID_BIAS, SIGMOID_BIAS)
      )
      return own + (batch_size - 1) * other
    return math.log(batch_size)
