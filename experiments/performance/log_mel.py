"""What the log-mel spectrogram costs of a training step of an S-size encoder.

python experiments/performance/log_mel.py [SECONDS [EXAMPLES]]

Both are jitted and timed in one process, in turns; the figure is the median
of the rounds' ratios.
"""

import statistics
import sys
import time

import jax
import jax.numpy as jnp

from mmjax.core import precision
from mmjax.models.encoders import ENCODERS

SAMPLE_RATE = 16_000  # Hz.
ROUNDS = 7


def main(secs: str = "10", examples: str = "4") -> None:
  """Prints the share, and both times."""
  num_samples = int(float(secs) * SAMPLE_RATE)
  encoder = ENCODERS["audio"](
    sample_rate=SAMPLE_RATE,
    num_samples=num_samples,
    size="S",
    precision=precision.policy("auto"),
  )
  waveform = 0.1 * jax.random.normal(
    jax.random.key(0), (int(examples), num_samples)
  )
  params = encoder.init(jax.random.key(1), waveform, train=False)

  @jax.jit
  def step(params, waveform):
    def loss(params):
      return jnp.mean(encoder.apply(params, waveform, train=True).x ** 2)

    gradient = jax.grad(loss)(params)
    return jax.tree.map(lambda p, g: p - 1e-3 * g, params, gradient)

  log_mel = jax.jit(encoder.stem.log_mel)
  times: dict[str, list[float]] = {"step": [], "log-mel": []}
  calls = {
    "step": lambda: step(params, waveform),
    "log-mel": lambda: log_mel(waveform),
  }
  for call in calls.values():  # Compiles.
    jax.block_until_ready(call())
  for _ in range(ROUNDS):
    for name, call in calls.items():
      start = time.perf_counter()
      jax.block_until_ready(call())
      times[name].append(time.perf_counter() - start)
  pairs = zip(times["log-mel"], times["step"], strict=True)
  shares = sorted(mel / whole for mel, whole in pairs)
  print(
    f"log-mel {statistics.median(times['log-mel']) * 1e3:.2f} ms, step "
    f"{statistics.median(times['step']) * 1e3:.0f} ms: share "
    f"{statistics.median(shares):.2%} ({shares[0]:.2%} to {shares[-1]:.2%}), "
    f"{examples} x {secs} s, {jax.devices()[0].device_kind}"
  )


if __name__ == "__main__":
  main(*sys.argv[1:])
