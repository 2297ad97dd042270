"""The width of an MLP where a config says it by a ratio."""

from collections.abc import Mapping
from typing import Any

from mmjax.convert.family import Source
from mmjax.core import errors


def complete_gpt2(source: Source, has: set[str]) -> dict[str, Any]:
  """`n_inner: null` is four times the width."""
  width = source.config.get("n_embd", 768)
  return {"n_inner": source.config.get("n_inner") or 4 * width}


def of_dinov2(config: Mapping[str, Any], ratio: int | float = 0) -> int:
  """`mlp_ratio` times the width; where it is gated, two thirds of that.

  Args:
    config: theirs.
    ratio: in place of `mlp_ratio`.
  """
  size = int(config["hidden_size"] * (ratio or config.get("mlp_ratio") or 4))
  gated = config.get("use_swiglu_ffn")
  return (int(size * 2 / 3) + 7) // 8 * 8 if gated else size


def derive_dinov2(config: Mapping[str, Any]) -> dict[str, Any]:
  """`mlp_ratio` of the width.

  Raises:
    UserError: there is no such ratio.
  """
  size = config["intermediate_size"]
  for ratio in (config.get("mlp_ratio", 4), *range(1, 17)):
    if of_dinov2(config, ratio) == size:
      return {**config, "mlp_ratio": ratio}
  raise errors.UserError(f"mlp_dim={size} is of no whole mlp_ratio up to 16.")
