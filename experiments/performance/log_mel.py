"""What the log-mel spectrogram costs of a training step of an S-size encoder.

python experiments/performance/log_mel.py [SECONDS [EXAMPLES]]

Both are jitted and timed in one process, in turns; the figure is the median
of the rounds' ratios. A round's time is the median of a few calls: the first
call after another program pays for pages that this one gave back, which within
a step no part does alone.
"""

import statistics
import sys
import time

import jax
import jax.numpy as jnp

from mmjax.core import precision
from mmjax.models.encoders import ENCODERS

SAMPLE_RATE = 16_000  # Hz.
ROUNDS = 5
CALLS = 3  # A round.


def timed(call) -> float:
  """Seconds that a call takes."""
  start = time.perf_counter()
  jax.block_until_ready(call())
  return time.perf_counter() - start


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
      times[name].append(statistics.median(timed(call) for _ in range(CALLS)))
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
