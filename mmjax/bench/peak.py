"""A large matrix product, timed like any candidate: what MFU divides by."""

import math
from typing import Any

import jax
import jax.numpy as jnp

SIZES = {"cpu": (2048, 1)}  # Rows and columns, products in a row.
LARGE = (8192, 8)


class Product:
  """Products of square matrices, see `candidate.StepCandidate`.

  Operands are float32 or bfloat16; of bfloat16 CPUs keep float32 results,
  which is the faster product there, others round them.
  """

  def __init__(self, precision: str):
    device = jax.devices()[0]
    size, repeats = SIZES.get(device.platform, LARGE)
    dtype = jnp.dtype(precision)
    # Of unit norm, so that products neither vanish nor overflow: zeros would
    # save power and look faster.
    keys = jax.random.split(jax.random.key(0))
    a, b = (jax.random.normal(k, (size, size)).astype(dtype) for k in keys)
    b = (b / math.sqrt(size)).astype(dtype)

    @jax.jit
    def product(a, b):
      def once(_, x):
        x = jnp.matmul(x, b, preferred_element_type=jnp.float32)
        return x.astype(dtype)

      return jax.lax.fori_loop(0, repeats, once, a)

    self._product, self._inputs = product, (a, b)
    self.facts: dict[str, Any] = {"flops": 2.0 * size**3 * repeats}
    self.run(1)

  def run(self, num_steps: int) -> None:
    for _ in range(num_steps):
      result = self._product(*self._inputs)
    result.block_until_ready()
