"""What stands between the last features and the logits of a task."""

import math
import string
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from mmjax.core import axes, errors
from mmjax.core import precision as precision_lib
from mmjax.models.layers.mlp import ACTIVATIONS
from mmjax.models.layers.norm import layer_norm
from mmjax.models.layers.placement import batch_ways, gather, place
from mmjax.models.layers.projection import Projection


class LinearHead(nn.Module):
  """One projection to logits; starts at zero, so at chance.

  With `tanh`, a projection and tanh come first (Devlin et al. 2019, released
  code, for the next sentence).
  """

  num_classes: int
  tanh: bool = False
  precision: precision_lib.Precision = precision_lib.FLOAT32

  @nn.compact
  def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b v"]:
    if self.tanh:
      hidden = Projection(
        (x.shape[-1],),
        (axes.EMBED, axes.MLP),
        precision=self.precision,
        name="hidden",
      )
      x = _placed(jnp.tanh(hidden(x)))
    return Projection(
      (self.num_classes,),
      (axes.EMBED, axes.VOCAB),
      kernel_init=nn.initializers.zeros_init(),
      precision=self.precision,
      name="logits",
    )(x)


class MlpHead(nn.Module):
  """Projection to twice the width, norm, GELU, logits; starts at chance.

  Source: ViLT (Kim et al. 2021, arXiv:2102.03334), released code, for answers.
  """

  num_classes: int
  precision: precision_lib.Precision = precision_lib.FLOAT32
  norm_epsilon: float = 1e-5

  @nn.compact
  def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b v"]:
    x = Projection(
      (2 * x.shape[-1],),
      (axes.EMBED, axes.MLP),
      precision=self.precision,
      name="hidden",
    )(x)
    x = layer_norm(self.precision, "norm", self.norm_epsilon)(x)
    return Projection(
      (self.num_classes,),
      (axes.EMBED, axes.VOCAB),
      kernel_init=nn.initializers.zeros_init(),
      precision=self.precision,
      name="logits",
    )(_placed(ACTIVATIONS["gelu"](x)))


class TokenHead(nn.Module):
  """Projection, GELU, norm, projection: BERT's head for hidden tokens.

  Source: Devlin et al. 2019, released code. The output starts small, so that
  the first loss is close to chance.
  """

  num_classes: int
  precision: precision_lib.Precision = precision_lib.FLOAT32
  activation: str = "gelu_tanh"  # See `layers.mlp`.
  norm_epsilon: float = 1e-6

  @nn.compact
  def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b v"]:
    x = _transform(self, x, x.shape[-1])
    return Projection(
      (self.num_classes,),
      (axes.EMBED, axes.VOCAB),
      kernel_init=nn.initializers.normal(0.02),
      precision=self.precision,
      name="logits",
    )(x)


class TiedTokenHead(nn.Module):
  """`TokenHead` whose output matrix is the table of a text encoder's tokens.

  Source: Press & Wolf 2017 (arXiv:1608.05859), as in BERT. The model passes
  the table of the encoder `tied_to`.
  """

  num_classes: int
  tied_to: str = "text"  # Modality.
  tied_in: str = "encoders"  # Or "decoders": whose part `tied_to` is.
  transform: bool = True  # Without: the product alone, as in GPT.
  precision: precision_lib.Precision = precision_lib.FLOAT32
  activation: str = "gelu_tanh"  # See `layers.mlp`.
  norm_epsilon: float = 1e-6

  @nn.compact
  def __call__(
    self, x: Float[Array, "*b d"], *, table: Float[Array, "v e"]
  ) -> Float[Array, "*b v"]:
    if len(table) != self.num_classes:
      raise errors.UserError(
        f"A head of {self.num_classes} classes is tied to the {len(table)} "
        f"tokens of {self.tied_to!r}."
      )
    if self.transform:
      x = _transform(self, x, table.shape[1])  # *b e
    lead = string.ascii_lowercase[: x.ndim - 1]
    table = gather(
      table.astype(self.precision.activations), (axes.VOCAB, axes.EMBED)
    )
    logits = precision_lib.einsum(
      f"{lead}y,zy->{lead}z", x, table, self.precision
    )
    bias = self.param(
      "bias",
      nn.with_logical_partitioning(nn.initializers.zeros_init(), (axes.VOCAB,)),
      (self.num_classes,),
      jnp.float32,
    )
    return logits + jnp.expand_dims(
      bias.astype(logits.dtype), tuple(range(x.ndim - 1))
    )


def _transform(head, x, width):
  """Projection, activation, norm; called within a compact module."""
  if head.activation not in ACTIVATIONS:
    raise errors.unknown("activation", head.activation, ACTIVATIONS)
  precision = head.precision
  x = Projection(
    (width,), (axes.EMBED, axes.MLP), precision=precision, name="hidden"
  )(x)
  x = ACTIVATIONS[head.activation](x)
  x = layer_norm(precision, "norm", head.norm_epsilon)(x)
  return _placed(x)


def _placed(x):
  # Two kernels in a row split over both mesh axes get wrong gradients from
  # XLA's partitioner (jax 0.10.2): what is between them is given a place.
  names = (axes.ACT_BATCH, *[None] * (x.ndim - 2), axes.ACT_EMBED)
  return place(x, names)


# Logits that are computed at a time on a device, of a head of many classes at
# many tokens: 256 MiB in float32.
MOST_LOGITS = 1 << 26


def num_parts(head: nn.Module, x: Float[Array, "b n d"]) -> int:
  """In how many parts the logits of so many tokens are computed."""
  classes = getattr(head, "num_classes", 0)
  examples = x.shape[0] // batch_ways(x.shape[0])
  share = examples * x.shape[1] * classes  # Of logits, on each device.
  return min(max(1, math.ceil(share / MOST_LOGITS)), x.shape[1])


def judge_in_parts(
  head: nn.Module,
  x: Float[Array, "b n d"],
  labels: Int[Array, "b n"],
  judge: Callable[[Array, Array], Any],
  parts: int,
  **given: Array,
) -> Any:
  """What is judged of the logits, which are never there all at once.

  Some tokens of each example at a time, in both passes; the backward pass
  computes their logits again.

  Args:
    head: whose logits.
    x: the tokens.
    labels: of the tokens.
    judge: `(logits, labels) -> tree` of arrays `b n`, each token by itself.
    parts: how many.
    given: passed to the head.
  """
  n = x.shape[1]
  length = -(-n // parts)

  def split(y):  # parts b length ...
    padding = [(0, 0)] * y.ndim
    padding[1] = (0, parts * length - n)
    y = jnp.pad(y, padding)
    y = y.reshape(y.shape[0], parts, length, *y.shape[2:])
    return jnp.moveaxis(y, 1, 0)

  def join(y):
    y = jnp.moveaxis(y, 0, 1)
    return y.reshape(y.shape[0], parts * length, *y.shape[3:])[:, :n]

  def body(head, _, part):
    return None, judge(head(part[0], **given), part[1])

  scan = nn.scan(
    nn.remat(body, prevent_cse=False),
    variable_broadcast="params",
    split_rngs={"params": False},
  )
  _, said = scan(head, None, (split(x), split(labels)))
  return jax.tree.map(join, said)


HEADS = {
  "linear": LinearHead,
  "mlp": MlpHead,
  "tied_token": TiedTokenHead,
  "token": TokenHead,
}
