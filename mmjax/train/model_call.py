"""Calls methods of a model with the variables and the keys of a step."""

import zlib
from collections.abc import Mapping
from typing import Any

import jax
from flax import linen as nn

RNG_STREAMS = ("dropout", "drop_path", "mask", "codebook")
DROPPING = ("dropout", "drop_path")  # Streams of training alone.
MUTABLE = ("codebook",)  # Collections that training may change.


class ModelCall:
  """Calls methods of a model with given variables, keeping what they change.

  Each call has random streams of its own, derived from the step's key and the
  name of the call: so an objective more changes nothing for the others.
  `averaged` are the parameters that compute `by="ema"`; None = the same.
  `keep` names collections that the calls may make, such as a decoder's cache.
  """

  def __init__(
    self,
    model: nn.Module,
    variables: Mapping[str, Any],
    rng: jax.Array,
    *,
    train: bool,
    averaged: Mapping[str, Any] | None = None,
    keep: tuple[str, ...] = (),
  ):
    self._model = model
    self._variables = dict(variables)
    self._rng = rng
    self._train = train
    self._averaged = averaged
    self._keep = keep

  def __call__(
    self,
    method: str,
    *args: Any,
    key: str,
    by: str = "model",
    **kwargs: Any,
  ) -> Any:
    if by != "model":
      return self._target(method, *args, by=by, **kwargs)
    rngs = {
      stream: jax.random.fold_in(
        self._rng, zlib.crc32(f"{stream}/{key}".encode())
      )
      for stream in RNG_STREAMS
      if self._train or stream not in DROPPING
    }
    mutable = [
      name for name in MUTABLE if self._train and name in self._variables
    ] + list(self._keep)
    out = self._model.apply(
      self._variables,
      *args,
      method=method,
      rngs=rngs,
      mutable=mutable or False,
      **kwargs,
    )
    if mutable:
      out, changed = out
      self._variables.update(changed)
    return out

  def _target(self, method, *args, by, **kwargs):
    """What another computes, as in evaluation."""
    variables = self._variables
    if by == "teacher":
      args, method = (method, *args), "teach"
    elif self._averaged is not None:
      variables = {**variables, "params": self._averaged}
    return self._model.apply(variables, *args, method=method, **kwargs)

  @property
  def collections(self) -> dict[str, Any]:
    """All but the parameters, as the calls left them."""
    return {k: v for k, v in self._variables.items() if k != "params"}
