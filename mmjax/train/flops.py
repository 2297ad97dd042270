"""Floating-point operations of a function, counted from its jaxpr.

XLA's `cost_analysis()` counts the body of a loop once, so scanned layers
would be missing; here a body counts as often as it runs.
"""

import collections
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax


def count_flops(fn: Callable[..., Any], *args: Any) -> float:
  """Counts matrix products and convolutions, 2 per multiply-add.

  Elementwise work, softmax and norms are not counted, which is the convention
  of model FLOPs (Chowdhery et al. 2022, arXiv:2204.02311, appendix B).
  """
  return sum(flops_by_scope(fn, *args).values(), 0.0)


def flops_by_scope(fn: Callable[..., Any], *args: Any) -> dict[str, float]:
  """The same, by where it is computed: names of modules and of transforms.

  E.g. "/transpose(jvp(Model.encode))/encoders_text/stack/layer_00/mlp/out" for
  a product of the backward pass.
  """
  counts: dict[str, float] = collections.defaultdict(float)
  for scope, count in _products(jax.make_jaxpr(fn)(*args).jaxpr, ""):
    counts[scope] += count
  return dict(counts)


def _products(jaxpr: Any, outside: str) -> Iterator[tuple[str, float]]:
  """The names around each product, and what it costs."""
  for eqn in jaxpr.eqns:
    name = eqn.primitive.name
    if name == "dot_general":
      yield _scope(eqn, outside), _of_product(eqn)
    elif name == "conv_general_dilated":
      yield _scope(eqn, outside), _of_convolution(eqn)
    elif inner := _inner(eqn):
      scope = _scope(eqn, outside)
      found = [list(_products(j, scope)) for j in inner]
      if name == "cond":  # The dearest branch.
        found = [max(found, key=lambda f: sum(count for _, count in f))]
      times = eqn.params["length"] if name == "scan" else 1
      yield from ((s, times * count) for f in found for s, count in f)


def _scope(eqn: Any, outside: str) -> str:
  own = str(eqn.source_info.name_stack)
  return f"{outside}/{own}" if own else outside


def _of_product(eqn: Any) -> float:
  (contracted, _), _ = eqn.params["dimension_numbers"]
  left = eqn.invars[0].aval.shape
  summed = math.prod(left[i] for i in contracted)
  return 2.0 * math.prod(eqn.outvars[0].aval.shape) * summed


def _of_convolution(eqn: Any) -> float:
  kernel = eqn.invars[1].aval.shape
  features = kernel[eqn.params["dimension_numbers"].rhs_spec[0]]
  per_output = math.prod(kernel) / features
  return 2.0 * math.prod(eqn.outvars[0].aval.shape) * per_output


def _inner(eqn: Any) -> list[Any]:
  """The jaxprs that an equation calls."""
  return [j for value in eqn.params.values() for j in _jaxprs(value)]


def _jaxprs(value: Any) -> list[Any]:
  if isinstance(value, (tuple, list)):
    return [j for v in value for j in _jaxprs(v)]
  if hasattr(value, "eqns"):
    return [value]
  # A closed jaxpr. Rules for derivatives that were not used stay functions.
  return [value.jaxpr] if hasattr(value, "jaxpr") else []
