"""Vector quantisation with an exponential-moving-average codebook."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jaxtyping import Array, Float, Int

from mmjax.models.layers.norm import unit_length


@struct.dataclass
class Quantized:
  """What the codebook makes of a batch of vectors."""

  vectors: Float[Array, "b n c"]  # Nearest codes; gradients pass straight on.
  codes: Int[Array, "b n"]
  commitment: Float[Array, "b n"]  # Squared distance to the code.
  restarted: Float[Array, ""]  # Codes given a new place in this call.


@struct.dataclass
class CodebookState:
  """State of the codebook: everything that the update changes.

  Arrays; in abstract states their shapes, in shardings their placement.
  """

  embedding: Any  # k c
  counts: Any  # k, moving average of uses per step.
  sums: Any  # k c, moving average of the sums of vectors.
  idle: Any  # k, steps since the code was last used.


def nearest(
  vectors: Float[Array, "m c"], embedding: Float[Array, "k c"]
) -> Int[Array, " m"]:
  """Index of the code with the smallest Euclidean distance to each vector."""
  # |v - e|^2 without |v|^2, which is the same for all codes.
  scores = vectors @ embedding.T - 0.5 * jnp.sum(embedding**2, axis=1)[None]
  return jnp.argmax(scores, axis=1).astype(jnp.int32)


def update(
  state: CodebookState,
  vectors: Float[Array, "m c"],
  codes: Int[Array, " m"],
  rng: jax.Array,
  *,
  decay: float,
  restart_after: int,
  normalize: bool,
) -> tuple[CodebookState, Float[Array, ""]]:
  """One step of the moving average, and a new place for dead codes.

  counts <- decay * counts + (1 - decay) * uses;  sums likewise;
  code = sums / counts. Source: van den Oord et al. 2017 (arXiv:1711.00937),
  appendix A.1. A code unused for `restart_after` steps moves onto a random
  vector of the batch (Williams et al. 2020, arXiv:2002.08111, 3.2).

  Returns:
    The new state, and how many codes were restarted.
  """
  num_codes = state.embedding.shape[0]
  one_hot = jax.nn.one_hot(codes, num_codes, dtype=jnp.float32)  # m k
  uses = jnp.sum(one_hot, axis=0)  # k
  counts = decay * state.counts + (1 - decay) * uses
  sums = decay * state.sums + (1 - decay) * (one_hot.T @ vectors)
  idle = jnp.where(uses > 0, 0, state.idle + 1)
  dead = idle >= restart_after
  picks = jax.random.randint(rng, (num_codes,), 0, vectors.shape[0])
  places = vectors[picks]  # k c
  # A restarted code weighs as much as one step of average use.
  fresh = (1 - decay) * vectors.shape[0] / num_codes
  counts = jnp.where(dead, fresh, counts)
  sums = jnp.where(dead[:, None], places * fresh, sums)
  mean = sums / jnp.maximum(counts, 1e-6)[:, None]
  embedding = jnp.where((counts > 1e-6)[:, None], mean, state.embedding)
  if normalize:
    embedding = unit_length(embedding)
  idle = jnp.where(dead, 0, idle)
  return (
    CodebookState(embedding, counts, sums, idle.astype(jnp.int32)),
    jnp.sum(dead).astype(jnp.float32),
  )


class Codebook(nn.Module):
  """Quantises vectors to the nearest of `num_codes` learned codes.

  The codes live in the collection "codebook" and follow the vectors by
  moving average, not by gradient. Vectors and codes are kept on the unit
  sphere if `normalize` (Yu et al. 2022, arXiv:2110.04627, 3.2).
  """

  num_codes: int
  code_dim: int
  decay: float = 0.98
  restart_after: int = 20  # Steps.
  normalize: bool = True

  def setup(self):
    def initial():
      shape = (self.num_codes, self.code_dim)
      embedding = jax.random.normal(self.make_rng("params"), shape)
      if self.normalize:
        embedding = unit_length(embedding)
      # As if idle for long: codes that the first batch does not use move
      # onto its vectors, which makes the start depend on the data.
      return CodebookState(
        embedding,
        jnp.zeros(self.num_codes),
        jnp.zeros(shape),
        jnp.full(self.num_codes, self.restart_after, jnp.int32),
      )

    self.state = self.variable("codebook", "state", initial)

  def __call__(
    self, vectors: Float[Array, "b n c"], *, train: bool
  ) -> Quantized:
    """Quantises, and follows the vectors if `train`."""
    vectors = vectors.astype(jnp.float32)
    if self.normalize:
      vectors = unit_length(vectors)
    b, n, c = vectors.shape
    flat = jax.lax.stop_gradient(vectors.reshape(b * n, c))  # (b n) c
    state = self.state.value
    codes = nearest(flat, state.embedding)  # (b n)
    picked = state.embedding[codes].reshape(b, n, c)
    restarted = jnp.zeros(())
    if train and not self.is_initializing():
      self.state.value, restarted = update(
        state,
        flat,
        codes,
        self.make_rng("codebook"),
        decay=self.decay,
        restart_after=self.restart_after,
        normalize=self.normalize,
      )
    commitment = jnp.sum((vectors - picked) ** 2, axis=-1)  # b n
    # Straight through: the value of the code, the gradient of the vector.
    passed = vectors + jax.lax.stop_gradient(picked - vectors)
    return Quantized(passed, codes.reshape(b, n), commitment, restarted)

  def lookup(self, codes: Int[Array, "b n"]) -> Float[Array, "b n c"]:
    """The vectors of codes."""
    return self.state.value.embedding[codes]
