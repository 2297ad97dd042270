"""A transform of a user's own that makes one process late."""

import dataclasses
import os
import time

import jax


@dataclasses.dataclass(frozen=True)
class Late:
  """Waits for each example: LATE_SECS in process 1, a little elsewhere."""

  def specs(self):
    return {}

  def __call__(self, example, rng, *, train):
    del rng, train
    late = jax.process_index() == 1
    time.sleep(float(os.environ.get("LATE_SECS", 0)) if late else 0.01)
    return example
