"""The one transformer block of the library, and a stack of it."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from mmjax.core import axes, errors
from mmjax.core import precision as precision_lib
from mmjax.models.layers.attention import Attention
from mmjax.models.layers.mlp import Mlp
from mmjax.models.layers.norm import layer_norm

# What the backward pass keeps of a block instead of computing it again.
REMAT_POLICIES = {
  "none": None,  # Everything is kept.
  "full": jax.checkpoint_policies.nothing_saveable,
  "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


class DropPath(nn.Module):
  """Stochastic depth: drops the residual branch of whole examples.

  Source: Huang et al. 2016 (arXiv:1603.09382).
  """

  rate: float  # Probability of dropping a branch.

  @nn.compact
  def __call__(
    self, x: Float[Array, "b n d"], *, train: bool
  ) -> Float[Array, "b n d"]:
    if not train or self.rate == 0.0:
      return x
    keep = jax.random.bernoulli(
      self.make_rng("drop_path"), 1.0 - self.rate, (x.shape[0], 1, 1)
    )
    return jnp.where(keep, x / (1.0 - self.rate), 0.0)


class Block(nn.Module):
  """Pre-norm transformer block: x + Attn(LN(x)), then x + MLP(LN(x))."""

  num_heads: int
  mlp_dim: int
  activation: str = "gelu_tanh"
  dropout_rate: float = 0.0
  drop_path_rate: float = 0.0
  precision: precision_lib.Precision = precision_lib.FLOAT32

  @nn.compact
  def __call__(
    self, x: Float[Array, "b n d"], mask: Bool[Array, "b q n"], train: bool
  ) -> Float[Array, "b n d"]:
    def residual(branch):
      branch = nn.Dropout(self.dropout_rate)(branch, deterministic=not train)
      return DropPath(self.drop_path_rate)(branch, train=train)

    y = layer_norm(self.precision, "attention_norm")(x)
    y = Attention(self.num_heads, self.precision, name="attention")(
      y, mask=mask
    )
    x = x + residual(y)
    y = layer_norm(self.precision, "mlp_norm")(x)
    y = Mlp(
      self.mlp_dim,
      self.activation,
      self.dropout_rate,
      self.precision,
      name="mlp",
    )(y, train=train)
    x = x + residual(y)
    return nn.with_logical_constraint(
      x, (axes.ACT_BATCH, axes.ACT_SEQ, axes.ACT_EMBED)
    )


class Stack(nn.Module):
  """`num_layers` blocks and a final norm.

  Unrolled layers (`layer_00`, `layer_01`, ...) run faster and can be frozen
  one by one; scanned ones (`layers`, stacked parameters) compile faster and,
  with remat, need a fraction of the memory.

  Raises:
    UserError: unknown remat policy.
  """

  num_layers: int
  num_heads: int
  mlp_dim: int
  activation: str = "gelu_tanh"
  dropout_rate: float = 0.0
  drop_path_rate: float = 0.0  # Of the last block; grows linearly from 0.
  scan: bool = False
  remat: str = "none"
  precision: precision_lib.Precision = precision_lib.FLOAT32

  @nn.compact
  def __call__(
    self, x: Float[Array, "b n d"], *, mask: Bool[Array, "b q n"], train: bool
  ) -> Float[Array, "b n d"]:
    x = x.astype(self.precision.activations)
    if self.scan:
      x = self._scanned(x, mask, train)
    else:
      block = self._block_class()
      last = max(self.num_layers - 1, 1)
      rates = [self.drop_path_rate * i / last for i in range(self.num_layers)]
      for i, rate in enumerate(rates):
        x = block(**self._block_fields(rate), name=f"layer_{i:02d}")(
          x, mask, train
        )
    return layer_norm(self.precision, "norm")(x)

  def _scanned(self, x, mask, train):
    if self.drop_path_rate:
      raise errors.UserError(
        "Stack.drop_path_rate grows with depth and scanned layers are all "
        "alike: set scan=False or drop_path_rate=0."
      )
    block = self._block_class()(**self._block_fields(0.0), name="layers")

    def body(module, carry, _):
      return module(carry, mask, train), None

    scan = nn.scan(
      body,
      variable_axes={"params": 0},
      split_rngs={"params": True, "dropout": True, "drop_path": True},
      length=self.num_layers,
      metadata_params={nn.PARTITION_NAME: axes.LAYERS},
    )
    return scan(block, x, None)[0]

  def _block_class(self):
    if self.remat not in REMAT_POLICIES:
      raise errors.unknown("remat policy", self.remat, REMAT_POLICIES)
    if self.remat == "none":
      return Block
    return nn.remat(
      Block,
      policy=REMAT_POLICIES[self.remat],
      static_argnums=(3,),
      prevent_cse=not self.scan,
    )

  def _block_fields(self, drop_path_rate):
    return dict(
      num_heads=self.num_heads,
      mlp_dim=self.mlp_dim,
      activation=self.activation,
      dropout_rate=self.dropout_rate,
      drop_path_rate=drop_path_rate,
      precision=self.precision,
    )
