"""Floating-point operations of a function, counted from its jaxpr.

XLA's `cost_analysis()` counts the body of a loop once, so scanned layers
would be missing; here a body counts as often as it runs.
"""

import math
from collections.abc import Callable
from typing import Any

import jax


def count_flops(fn: Callable[..., Any], *args: Any) -> float:
  """Counts matrix products and convolutions, 2 per multiply-add.

  Elementwise work, softmax and norms are not counted, which is the convention
  of model FLOPs (Chowdhery et al. 2022, arXiv:2204.02311, appendix B).
  """
  return _count(jax.make_jaxpr(fn)(*args).jaxpr)


def _count(jaxpr: Any) -> float:
  return sum((_count_equation(eqn) for eqn in jaxpr.eqns), 0.0)


def _count_equation(eqn: Any) -> float:
  name = eqn.primitive.name
  if name == "dot_general":
    (contracted, _), _ = eqn.params["dimension_numbers"]
    left = eqn.invars[0].aval.shape
    summed = math.prod(left[i] for i in contracted)
    return 2.0 * math.prod(eqn.outvars[0].aval.shape) * summed
  if name == "conv_general_dilated":
    kernel = eqn.invars[1].aval.shape
    features = kernel[eqn.params["dimension_numbers"].rhs_spec[0]]
    per_output = math.prod(kernel) / features
    return 2.0 * math.prod(eqn.outvars[0].aval.shape) * per_output
  inner = [_count(j) for value in eqn.params.values() for j in _jaxprs(value)]
  if name == "scan":
    return eqn.params["length"] * sum(inner, 0.0)
  if name == "cond":
    return max(inner, default=0.0)
  return sum(inner, 0.0)


def _jaxprs(value: Any) -> list[Any]:
  if isinstance(value, (tuple, list)):
    return [j for v in value for j in _jaxprs(v)]
  if hasattr(value, "eqns"):
    return [value]
  # A closed jaxpr. Rules for derivatives that were not used stay functions.
  return [value.jaxpr] if hasattr(value, "jaxpr") else []
