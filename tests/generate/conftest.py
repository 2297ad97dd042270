"""A model that can be computed by hand: logits looked up by all of a text."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.generate.decoding import Texts

MODULUS = 1009


@dataclasses.dataclass(frozen=True)
class Toy:
  """A text is a number, from its tokens and their positions; so are logits."""

  table: np.ndarray  # Number of a text, vocabulary.

  @property
  def vocab_size(self):
    return self.table.shape[1]

  def number(self, ids):
    code = 0
    for position, token in enumerate(ids):
      code = self._next(code, token, position)
    return code

  def _next(self, code, token, position):
    return (code * 31 + token * 7 + position + 1) % MODULUS

  def logits(self, ids):
    """What follows a text."""
    return self.table[self.number(ids)].astype(np.float64)

  def log_probs(self, ids):
    logits = self.logits(ids)
    return logits - np.log(np.sum(np.exp(logits)))

  def step(self, cache, tokens, positions):
    """A `decoding.Step`."""
    code, said = cache["code"], []
    for i in range(tokens.shape[1]):
      code = self._next(code, tokens[:, i], positions[:, i])
      said.append(jnp.asarray(self.table)[code])
    return jnp.stack(said, axis=1), {"code": code}

  def start(self, prompts, room):
    tokens = np.zeros((len(prompts), room), np.int32)
    for row, ids in zip(tokens, prompts, strict=True):
      row[: len(ids)] = ids
    codes = np.array([self.number(ids) for ids in prompts], np.int32)
    return Texts(
      jnp.asarray(tokens),
      jnp.asarray([len(ids) for ids in prompts], jnp.int32),
      jnp.zeros(len(prompts), bool),
      jnp.asarray(self.table[codes]),
      {"code": jnp.asarray(codes)},
    )


@pytest.fixture(scope="session")
def toy():
  """`toy(vocab_size)`"""

  def make(vocab_size):
    table = np.random.default_rng(0).normal(size=(MODULUS, vocab_size))
    return Toy((2 * table).astype(np.float32))

  return make
