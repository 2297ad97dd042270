"""Sequences of four modalities, and what a fusion makes of them at first."""

import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core.sequence import Sequence

# Which tokens count: the first example has everything, the second lacks text
# and video and has padded sound, the third has padded text only.
MASKS = {
  "audio": ["1111", "1110", "0000"],
  "image": ["11111", "11111", "00000"],
  "text": ["111", "000", "110"],
  "video": ["11", "00", "00"],
}


@pytest.fixture(scope="package")
def four():
  """Sound; a picture with CLS; narrower text; a clip with dropped tokens."""
  rng = np.random.default_rng(8)
  sequences = {}
  for name, rows in MASKS.items():
    mask = np.asarray([[c == "1" for c in row] for row in rows])
    n, d = mask.shape[1], 12 if name == "text" else 16
    x = rng.normal(size=(3, n, d))
    num_prefix = int(name == "image")
    sequences[name] = Sequence(
      jnp.asarray(x, jnp.float32),
      jnp.asarray(mask),
      num_prefix=num_prefix,
      num_content=n - num_prefix,
    )
  positions = jnp.asarray([[0, 2], [1, 2], [2, 0]])
  sequences["video"] = sequences["video"].replace(
    positions=positions, num_content=3
  )
  return sequences


@pytest.fixture(scope="package")
def inputs_by_hand(by_hand):
  """What one example's modality brings into the layers, and its mask."""

  def inputs(params, name, sequence, i):
    x = np.asarray(sequence.x[i], np.float64)
    mask = np.asarray(sequence.mask[i])
    if f"input_{name}" in params:
      x = by_hand.linear(params[f"input_{name}"], x)
    if sequence.positions is not None:
      restore = params[f"restore_{name}"]
      rows = np.asarray(restore["mask_token"]) + np.asarray(
        restore["positions"]["table"]
      )
      counts = np.full(len(rows), mask.any())
      rows[np.asarray(sequence.positions[i])] = x
      counts[np.asarray(sequence.positions[i])] = mask
      x, mask = rows, counts
    return x + np.asarray(params[f"modality_{name}"]), mask

  return inputs
