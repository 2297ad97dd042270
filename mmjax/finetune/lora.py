"""Low-rank adapters beside frozen projections.

Source: Hu et al. 2021 (arXiv:2106.09685): y = x W + (alpha / rank) x A B, with
W as it was and A, B learned. No module knows of it: `Adapter` watches the
calls within a model, as `nn.intercept_methods` lets it.
"""

import dataclasses
import math
import string
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from mmjax.core import axes, errors, trees
from mmjax.core import precision as precision_lib

A, B, KERNEL = "lora_a", "lora_b", "kernel"
ADAPTERS = f".*/({A}|{B})"  # Pattern of their names.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lora:
  """The section `finetune.lora`.

  Raises:
    UserError: a number outside its domain, or no targets.
  """

  rank: int = 8
  alpha: float = 16.0  # What A B is multiplied by, times rank.
  # Patterns of modules with a kernel; the paper's are queries and values.
  targets: tuple[str, ...] = (r".*attention/(query|value)",)
  dropout_rate: float = 0.0  # Of what A reads.

  def __post_init__(self):
    if self.rank < 1:
      raise errors.UserError(f"rank={self.rank}, expected 1 or more.")
    if not self.alpha > 0:
      raise errors.UserError(f"alpha={self.alpha}, expected > 0.")
    if not 0 <= self.dropout_rate < 1:
      raise errors.UserError(
        f"dropout_rate={self.dropout_rate}, expected [0, 1)."
      )
    if not self.targets:
      raise errors.UserError(
        "targets=() adapts nothing; leave finetune.lora out, or name modules, "
        "e.g. '.*attention/(query|value)'."
      )
    for pattern in self.targets:
      trees.compile_pattern(pattern)

  @property
  def scale(self) -> float:
    """What A B is multiplied by."""
    return self.alpha / self.rank


class Linear(Protocol):
  """The modules that can be adapted: `models.layers.projection.Projection`."""

  features: tuple[int, ...]
  kernel_axes: tuple[str, ...]
  num_in: int
  precision: precision_lib.Precision


@dataclasses.dataclass(frozen=True)
class Adapter:
  """Adds x A B to what the targets give.

  Both are parameters of the module itself, placed by the kernel's rules: A has
  the axes of its inputs, B those of its outputs. B starts at zero, so the
  model starts as it was.
  """

  lora: Lora
  kind: type  # Of the modules that can be adapted, see `Linear`.
  excluded: tuple[str, ...] = ()  # Patterns of adapters that are not made.

  def __call__(
    self,
    next_fun: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    context: nn.module.InterceptorContext,
  ) -> Any:
    """An interceptor, see `nn.intercept_methods`."""
    y = next_fun(*args, **kwargs)
    module = context.module
    if not isinstance(module, self.kind) or context.method_name != "__call__":
      return y
    if not self.adapts("/".join(module.path)):
      return y
    return y + _product(module, args[0], self.lora).astype(y.dtype)

  def adapts(self, name: str) -> bool:
    """Whether a module gets an adapter, by its name."""
    return _matches(self.lora.targets, name) and not _matches(
      self.excluded, f"{name}/{A}"
    )


def _matches(patterns, name):
  return any(trees.compile_pattern(p).fullmatch(name) for p in patterns)


def _product(module: Any, x: Float[Array, "..."], lora: Lora):
  """Declares A and B in a module; scaled x A B."""
  num_in, features = module.num_in, module.features
  lead, inputs = x.ndim - num_in, x.shape[x.ndim - num_in :]
  a = module.param(
    A,
    nn.with_logical_partitioning(
      nn.initializers.variance_scaling(
        1.0, "fan_in", "normal", in_axis=tuple(range(num_in)), out_axis=-1
      ),
      (*module.kernel_axes[:num_in], axes.LORA_RANK),
    ),
    (*inputs, lora.rank),
    jnp.float32,
  )
  b = module.param(
    B,
    nn.with_logical_partitioning(
      nn.initializers.zeros_init(),
      (axes.LORA_RANK, *module.kernel_axes[num_in:]),
    ),
    (lora.rank, *features),
    jnp.float32,
  )
  if lora.dropout_rate and module.has_rng("dropout"):  # Evaluation has none.
    keep = 1.0 - lora.dropout_rate
    kept = jax.random.bernoulli(module.make_rng("dropout"), keep, x.shape)
    x = jnp.where(kept, x / keep, jnp.zeros((), x.dtype))
  letters = string.ascii_lowercase
  batch, summed = letters[:lead], letters[lead : lead + num_in]
  out = letters[lead + num_in :][: len(features)]
  x = precision_lib.einsum(
    f"{batch}{summed},{summed}z->{batch}z", x, a, module.precision
  )
  y = precision_lib.einsum(
    f"{batch}z,z{out}->{batch}{out}", x, b, module.precision
  )
  return y * lora.scale


def is_adapter(name: str) -> bool:
  """Whether a parameter is an A or a B."""
  return name.rpartition("/")[2] in (A, B)


def check(lora: Lora, params: Any) -> None:
  """Checks that every target found a module.

  Raises:
    UserError: one did not; names what is near.
  """
  names = list(trees.flatten(params))
  adapted = [n.removesuffix(f"/{A}") for n in names if n.endswith(f"/{A}")]
  modules = [
    n.removesuffix(f"/{KERNEL}") for n in names if n.endswith(f"/{KERNEL}")
  ]
  tails = sorted({"/".join(n.split("/")[-2:]) for n in modules})
  for pattern in lora.targets:
    if not any(_matches((pattern,), name) for name in adapted):
      near = errors.nearest(pattern.removeprefix(".*/"), [*tails, *modules])
      raise errors.UserError(
        f"finetune.lora.targets: {pattern!r} matches none of the "
        f"{len(modules)} projections that may be adapted.{near} They end in "
        f"{tails}. Patterns are regular expressions for whole names of "
        f"modules, e.g. '.*attention/(query|value)'; first names: "
        f"{modules[:3]}. finetune.frozen has the last word."
      )


def left(patterns: tuple[str, ...], params: Any) -> tuple[str, ...]:
  """Patterns without those of adapters that for this reason are not made."""
  names = list(trees.flatten(params))
  could_be = [
    f"{n.removesuffix(KERNEL)}{A}" for n in names if n.endswith(f"/{KERNEL}")
  ]

  def matches(pattern, names):
    return any(_matches((pattern,), name) for name in names)

  return tuple(
    p for p in patterns if matches(p, names) or not matches(p, could_be)
  )


def merge(params: Any, lora: Lora) -> dict[str, Any]:
  """Parameters of the model without adapters that computes the same.

  Each kernel becomes W + (alpha / rank) A B, computed in float64.

  Args:
    params: arrays, adapters among them.
    lora: what they were trained with.
  """
  flat = trees.flatten(params)
  merged = {n: x for n, x in flat.items() if not is_adapter(n)}
  for name in flat:
    module, _, last = name.rpartition("/")
    if last == A:
      kernel, b = f"{module}/{KERNEL}", f"{module}/{B}"
      merged[kernel] = merge_kernel(
        np.asarray(flat[kernel]),
        np.asarray(flat[name]),
        np.asarray(flat[b]),
        lora.scale,
      )
  return trees.unflatten(merged)


def merge_kernel(
  kernel: Float[np.ndarray, "..."],
  a: Float[np.ndarray, "..."],
  b: Float[np.ndarray, "..."],
  scale: float,
) -> Float[np.ndarray, "..."]:
  """W + scale A B; where layers are stacked, layer by layer."""
  stacked = a.ndim + b.ndim - 2 - kernel.ndim  # 0 or 1 axis of layers.
  lead, rank = kernel.shape[:stacked], a.shape[-1]
  outputs = math.prod(b.shape[stacked + 1 :])
  a = a.astype(np.float64).reshape(*lead, -1, rank)
  b = b.astype(np.float64).reshape(*lead, rank, outputs)
  product = scale * (a @ b).reshape(kernel.shape)
  return (kernel + product).astype(kernel.dtype)
