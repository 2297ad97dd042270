"""What is timed: the work that all candidates do, and what each of them is.

A candidate is made in a process of its own, by a factory `(work, precision) ->
StepCandidate`; its precision is "float32" or "bfloat16", the fast one of its
library.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

PRECISIONS = ("float32", "bfloat16")
# What all train with: AdamW with constant rates.
LR, B1, B2, WEIGHT_DECAY = 1e-3, 0.9, 0.999, 1e-4
PARITY_STEPS = 8  # On the one batch, before anything is timed.


class NotInstalled(Exception):
  """A candidate lacks its library; says how to install it."""


@dataclasses.dataclass(frozen=True)
class Tower:
  """A transformer."""

  width: int
  layers: int
  heads: int
  mlp_dim: int


@dataclasses.dataclass(frozen=True)
class Work:
  """A training step, told to every candidate alike; 0 where there is none."""

  kind: str  # One of `work.KINDS`.
  batch_size: int
  image_size: int = 0  # Pixels.
  patch_size: int = 0
  image: Tower | None = None
  text: Tower | None = None
  fusion: Tower | None = None  # Over the tokens of both.
  num_classes: int = 0
  vocab_size: int = 0
  text_tokens: int = 0
  num_codes: int = 0  # Of hidden patches.
  hidden_ratio: float = 0.0  # Of the patches.
  drops: bool = False  # Hidden patches are left out, not replaced.

  @property
  def patches(self) -> int:
    """Of a picture."""
    return (self.image_size // self.patch_size) ** 2 if self.patch_size else 0


@runtime_checkable
class StepCandidate(Protocol):
  """A training step with its state and one batch, ready to run.

  `facts` may have "compile_secs", "params", "temp_bytes" and "argument_bytes"
  (XLA's), "losses" (of `PARITY_STEPS` steps) and "flops" (of a step).
  """

  facts: dict[str, Any]

  def run(self, num_steps: int) -> None:
    """Runs so many steps, and waits until the device is done."""
    ...


Factory = Callable[[Work, str], StepCandidate]
