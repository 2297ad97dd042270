"""What each device does as there are more of them, and a batch for each.

python experiments/performance/weak_scaling.py

One machine pretends to be 1, 2, 4 and 8 devices, so time says nothing; the
compiled step of the quickstart's model does. FLOPs of a device have to stay,
and bytes that it sends to grow as a ring of n devices asks: (n - 1) / n times
what is gathered or scattered, twice that for a sum that all get.
"""

import os

os.environ["JAX_NUM_CPU_DEVICES"] = "8"
os.environ["JAX_PLATFORMS"] = "cpu"

import math  # noqa: E402

import jax  # noqa: E402

from mmjax.build import experiment, settings  # noqa: E402
from mmjax.core import config as config_lib  # noqa: E402
from mmjax.core import trees  # noqa: E402
from mmjax.plan import collectives, hlo, work  # noqa: E402

PER_DEVICE = 8  # Examples.
MESHES = {
  "data_parallel": lambda n: dict(data=n),
  "fsdp": lambda n: dict(data=1, fsdp=n),
}


def measure(rules: str, n: int) -> tuple[float, float, float]:
  """GFLOPs of a device, MB that it sends, MB of trained parameters."""
  config = config_lib.load("configs/quickstart/pretrain.py")
  config.init = dict(from_checkpoint="")
  config.mesh = dict(rules=rules, **MESHES[rules](n))
  config.train.batch_size = PER_DEVICE * n
  config.model.precision = "float32"
  made = experiment.prepare(settings.resolve(config), jax.devices()[:n])
  module = hlo.parse(made.lower_step().compile().as_text())
  flops = math.fsum(
    at.times * work.flops(module, at.computation, at.instruction)
    for at in hlo.walk(module)
  )
  sent = math.fsum(
    found.sent_a_step
    for found in collectives.find(module, dict(made.mesh.shape))
  )
  trained, _ = trees.split(made.abstract_state.params, made.trainable)
  return flops / 1e9, sent / 1e6, trees.num_bytes(trained) / 1e6


def main() -> None:
  """Prints a Markdown table."""
  print("| rules | devices | GFLOPs of each | MB sent by each | per ring |")
  print("|---|---|---|---|---|")
  for rules in MESHES:
    for n in (1, 2, 4, 8):
      flops, sent, size = measure(rules, n)
      ring = (n - 1) / n * size
      ratio = f"{sent / ring:.2f}" if ring else "-"
      print(f"| {rules} | {n} | {flops:.2f} | {sent:.1f} | {ratio} |")
  print(
    f"\nTrained parameters: {size:.1f} MB. Per ring: MB sent over "
    "(n - 1) / n times these."
  )


if __name__ == "__main__":
  main()
