"""Vision token prediction with hidden patches dropped, against replaced.

python experiments/performance/dropped_patches.py [PRECISION [EXAMPLES]]

Whole training steps of ViT-B/16 on 224 pixels, of which 3/4 are hidden, AdamW
and the tokenizer (8192 codes) included, in one process and in turns; the
figure is the median of the rounds' ratios. What drops patches has a decoder
besides, of half the width and four layers.
"""

import statistics
import sys
import time

import jax
import ml_collections as mlc
import numpy as np

from mmjax.build import experiment, initial, settings

ROUNDS = 5


def config(hidden: str, precision: str, examples: int) -> mlc.ConfigDict:
  """A run whose encoder drops or replaces hidden patches."""
  c = mlc.ConfigDict()
  c.data = dict(
    source="synthetic",
    image=dict(size=224, mask=dict(rate=0.75, patch_size=16)),
  )
  c.model = dict(
    encoders=dict(
      image=dict(name="vit", patch_size=16, size="B", hidden=hidden)
    ),
    visual_tokenizer=dict(
      name="random_projection", patch_size=16, num_codes=8192
    ),
    precision=precision,
  )
  if hidden == "drop":
    c.model.decoders = dict(image=dict(name="patches"))
  c.tasks = dict(
    main=dict(
      objectives=dict(vtp=dict(name="vision_token_prediction", given=()))
    )
  )
  c.train = dict(batch_size=examples)
  return settings.resolve(c)


class Timed:
  """A run that is made and compiled."""

  def __init__(self, hidden: str, precision: str, examples: int):
    made_of = config(hidden, precision, examples)
    self.made = experiment.prepare(made_of, jax.devices()[:1])
    self.state, _ = initial.initial_state(made_of, self.made)
    pipeline = self.made.parts.pipelines["main"]
    rows = [pipeline.example(i, 0, 0, train=True) for i in range(examples)]
    batch = {n: np.stack([r[n] for r in rows]) for n in pipeline.specs}
    self.batch = self.made.put({"main": batch})
    self.step()

  def step(self) -> float:
    """Takes one step; seconds."""
    start = time.perf_counter()
    self.state, metrics = self.made.run_step(self.state, self.batch)
    jax.block_until_ready((self.state, metrics))
    return time.perf_counter() - start


def main(precision: str = "auto", examples: str = "4") -> None:
  """Prints both speeds and their ratio."""
  count = int(examples)
  runs = {h: Timed(h, precision, count) for h in ("replace", "drop")}
  times: dict[str, list[float]] = {name: [] for name in runs}
  for _ in range(ROUNDS):
    for name, run in runs.items():
      times[name].append(run.step())
  ratios = [a / b for a, b in zip(times["replace"], times["drop"], strict=True)]
  for name, values in times.items():
    speed = count / statistics.median(values)
    params = runs[name].made.num_params()[0]
    print(f"{name:8} {speed:6.2f} examples/s  {params / 1e6:.0f} M parameters")
  print(
    f"ratio {statistics.median(ratios):.2f} "
    f"({min(ratios):.2f} to {max(ratios):.2f}), {precision}, {count} examples"
  )


if __name__ == "__main__":
  main(*sys.argv[1:])
