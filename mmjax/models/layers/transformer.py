"""The one transformer block of the library, and a stack of it."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from mmjax.core import axes, errors
from mmjax.core import precision as precision_lib
from mmjax.models.layers import flash as flash_lib
from mmjax.models.layers import norm as norm_lib
from mmjax.models.layers.attention import CACHE, Attention
from mmjax.models.layers.mlp import Mlp
from mmjax.models.layers.options import REMAT_POLICIES, StackOptions
from mmjax.models.layers.placement import place
from mmjax.models.layers.relative import Relative, RelativeBias


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
  """The transformer block: x + Attn(norm(x)), then x + MLP(norm(x)).

  With a context, between the two: x + CrossAttn(norm(x), context), queries
  from x, keys and values from the context (Vaswani et al. 2017, 3.1). A token
  that may look at nothing of the context goes on as if there were none. With
  `experts`, each stretch of the sequence has a feed-forward of its own
  (BEiT-3, Wang et al. 2022, arXiv:2208.10442, 2.1). `options` has the variants.
  """

  num_heads: int
  mlp_dim: int
  options: StackOptions = StackOptions()
  drop_path_rate: float = 0.0  # Of this block.
  # Name and length of each stretch; empty = one feed-forward for all.
  experts: tuple[tuple[str, int], ...] = ()
  self_attention: bool = True
  feed_forward: bool = True
  # The context passes a norm first: for one that comes from a pre-norm
  # stream, not from the end of a stack.
  context_norm: bool = False
  flash: bool = False  # To itself, see `Attention`;
  flash_context: bool = False  # and to the context.
  precision: precision_lib.Precision = precision_lib.FLOAT32

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "b n d"],
    mask: Bool[Array, "b q s"],
    train: bool,
    angles: Float[Array, "#b n r"] | None = None,
    context: Float[Array, "b m e"] | None = None,
    context_mask: Bool[Array, "b p m"] | None = None,
    slots: Int[Array, "b n"] | None = None,
    relative: Relative | None = None,
    bias: Float[Array, "#b k n s"] | None = None,
  ) -> Float[Array, "b n d"]:
    if self.self_attention:
      if relative is not None:
        bias = RelativeBias(self.num_heads, name="relative")(relative)
      attention = self._attention("attention", self.flash)
      x = self._residual(
        "attention",
        x,
        lambda y: attention(
          y, mask=mask, angles=angles, slots=slots, bias=bias
        ),
        train,
      )
    if context is not None:
      x = self._cross(x, context, context_mask, slots, train)
    if self.feed_forward:
      x = self._residual(
        "mlp", x, lambda y: self._feed_forward(y, train), train
      )
    return place(x, (axes.ACT_BATCH, axes.ACT_SEQ, axes.ACT_EMBED))

  def _cross(self, x, context, mask, slots, train):
    if self.context_norm:
      context = self._norm("context_norm")(context)
    attention = self._attention("cross_attention", self.flash_context)
    attended = self._residual(
      "cross_attention",
      x,
      lambda y: attention(y, context, mask=mask, slots=slots),
      train,
    )
    # Attention to nothing is not nothing: its output has a bias.
    sees = jnp.any(mask, axis=-1)[:, :, None]  # b q 1
    return jnp.where(sees, attended, x)

  def _residual(self, name, x, branch, train):
    """Adds a branch to the stream, with norm, scale and what is dropped."""
    options = self.options
    norm = self._norm(f"{name}_norm")
    pre = options.norm_position == "pre"
    y = branch(norm(x) if pre else x)
    if options.layer_scale:
      scale = self.param(
        f"{name}_scale",
        nn.with_logical_partitioning(
          nn.initializers.constant(options.layer_scale), (axes.EMBED,)
        ),
        (x.shape[-1],),
        jnp.float32,
      )
      y = y * jnp.expand_dims(scale, (0, 1)).astype(y.dtype)
    y = nn.Dropout(options.dropout_rate)(y, deterministic=not train)
    x = x + DropPath(self.drop_path_rate)(y, train=train)
    return x if pre else norm(x)

  def _norm(self, name):
    return norm_lib.norm(
      self.options.norm, self.precision, name, self.options.norm_epsilon
    )

  def _attention(self, name, flash):
    return Attention(
      self.num_heads,
      self.options.use_bias,
      self.options.qk_norm,
      self.precision,
      self.options.key_bias,
      flash,
      name=name,
    )

  def _feed_forward(self, x, train):
    if not self.experts:
      return self._mlp("mlp", axes.MLP)(x, train=train)
    parts, start = [], 0
    for name, length in self.experts:
      part = x[:, start : start + length]
      expert = self._mlp(f"mlp_{name}", axes.EXPERT_MLP)
      parts.append(expert(part, train=train))
      start += length
    return jnp.concatenate(parts, axis=1)

  def _mlp(self, name, axis):
    options = self.options
    return Mlp(
      self.mlp_dim,
      options.activation,
      options.dropout_rate,
      options.gated,
      options.use_bias,
      axis,
      self.precision,
      name=name,
    )


def block_class(options: StackOptions) -> type[Block]:
  """`Block`, or `Block` that the backward pass computes again."""
  if REMAT_POLICIES[options.remat] is None:
    return Block
  return nn.remat(
    Block,
    policy=REMAT_POLICIES[options.remat],
    static_argnums=(3,),
    prevent_cse=not options.scan,
  )


class Stack(nn.Module):
  """`num_layers` blocks, and a norm after the last unless each ends in one.

  Layers are `layer_00`, `layer_01`, ..., or, scanned, `layers`.
  """

  num_layers: int
  num_heads: int
  mlp_dim: int
  options: StackOptions = StackOptions()
  experts: tuple[tuple[str, int], ...] = ()  # See `Block`.
  fused_layers: int = 0  # The last so many have no experts.
  self_attention: bool = True
  precision: precision_lib.Precision = precision_lib.FLOAT32

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "b n d"],
    *,
    mask: Bool[Array, "b q s"],
    train: bool,
    angles: Float[Array, "#b n r"] | None = None,
    context: Float[Array, "b m e"] | None = None,
    context_mask: Bool[Array, "b p m"] | None = None,
    slots: Int[Array, "b n"] | None = None,
    relative: Relative | None = None,
  ) -> Float[Array, "b n d"]:
    """Mixes tokens.

    Args:
      x: the tokens.
      mask: True where a token (or all, q = 1) may look: s is n, or with `slots`
        the size of the cache.
      train: dropout and stochastic depth are on.
      angles: of rotary positions, see `positions.rotary_angles`.
      context: every layer also attends to this.
      context_mask: where in the context a token (or all, p = 1) may look.
      slots: keeps keys and values, see `Attention`.
      relative: of the tokens, where options have relative positions.

    Raises:
      UserError: they have, and the caller does not know where tokens are.
    """
    x = x.astype(self.precision.activations)
    biases = self._biases(relative)
    order = context_order = None
    if slots is None and self._may_flash(x.shape[-1]):
      order = self._order(mask, context_mask, biases)
      if context_mask is not None and context_mask.shape[1] == 1:
        context_order = flash_lib.order(context_mask)
    if order is not None:
      x, mask = order.sort(x), order.sort_mask(mask)
      if angles is not None:
        angles = jnp.broadcast_to(angles, (*x.shape[:2], angles.shape[2]))
        angles = order.sort(angles)
    if context_order is not None:
      context = context_order.sort(context)
      context_mask = context_order.sort_mask(context_mask)
    inputs = (mask, train, angles, context, context_mask, slots, *biases)
    flash = order is not None, context_order is not None
    layers = self._scanned if self.options.scan else self._unrolled
    x = layers(x, inputs, flash)
    if order is not None:
      x = order.sort_back(x)
    if self.options.norm_position == "post" or not self.options.final_norm:
      return x
    return norm_lib.norm(
      self.options.norm, self.precision, "norm", self.options.norm_epsilon
    )(x)

  def _may_flash(self, embed_dim):
    return self.options.attention == "cudnn" and flash_lib.available(
      self.precision.activations, embed_dim // self.num_heads
    )

  def _order(self, mask, context_mask, biases):
    """Of tokens that see each other but for padding; else None."""
    if mask.shape[1] > 1 or self.experts or any(b is not None for b in biases):
      return None
    if not self.self_attention:
      return None
    if context_mask is not None and context_mask.shape[1] > 1:
      return None
    return flash_lib.order(mask)

  def _biases(self, relative):
    """Of each layer's own, and of all."""
    kind = self.options.relative_positions
    if kind == "none":
      return None, None
    if relative is None:
      raise errors.UserError(
        f"stack.relative_positions={kind!r}: only the stack of the encoder "
        "'vit' knows where in a grid its tokens are. Leave it 'none' elsewhere."
      )
    if kind == "layer":
      return relative, None
    return None, RelativeBias(self.num_heads, name="relative")(relative)

  def _unrolled(self, x, inputs, flash):
    block = block_class(self.options)
    last = max(self.num_layers - 1, 1)
    for i in range(self.num_layers):
      rate = self.options.drop_path_rate * i / last
      fields = self._block_fields(i, rate, flash)
      x = block(**fields, name=f"layer_{i:02d}")(x, *inputs)
    return x

  def _scanned(self, x, inputs, flash):
    if self.experts and 0 < self.fused_layers < self.num_layers:
      raise errors.UserError(
        "Scanned layers are all alike: with experts in some layers only, set "
        "scan=False."
      )
    block = block_class(self.options)(
      **self._block_fields(0, 0.0, flash), name="layers"
    )

    def body(module, carry, _):
      return module(carry, *inputs), None

    scan = nn.scan(
      body,
      variable_axes={"params": 0, CACHE: 0},
      split_rngs={"params": True, "dropout": True, "drop_path": True},
      length=self.num_layers,
      metadata_params={nn.PARTITION_NAME: axes.LAYERS},
    )
    return scan(block, x, None)[0]

  def _block_fields(self, index, drop_path_rate, flash):
    fused = index >= self.num_layers - self.fused_layers
    return dict(
      num_heads=self.num_heads,
      mlp_dim=self.mlp_dim,
      options=self.options,
      drop_path_rate=drop_path_rate,
      experts=() if fused else self.experts,
      self_attention=self.self_attention,
      flash=flash[0],
      flash_context=flash[1],
      precision=self.precision,
    )
