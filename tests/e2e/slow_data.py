"""A transform of a user's own: gives a test time to kill the run."""

import dataclasses
import time


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wait:
  """Waits for each example."""

  secs: float = 0.02

  def specs(self):
    return {}

  def __call__(self, example, rng, *, train):
    del rng, train
    time.sleep(self.secs)
    return example
