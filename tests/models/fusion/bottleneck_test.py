import jax
import numpy as np
import pytest

from mmjax.core import trees
from mmjax.models.fusion.bottleneck import bottleneck

D, MLP, TOKENS, LAYERS = 16, 24, 2, 3
SIZE = dict(embed_dim=D, num_layers=LAYERS, num_heads=2, mlp_dim=MLP)
NAMES = ("audio", "image", "text")
FUSION = bottleneck(size=SIZE, num_tokens=TOKENS, fusion_start=1)


@pytest.fixture(scope="module")
def three(four):
  return {name: four[name] for name in NAMES}


@pytest.fixture(scope="module")
def params(three, randomized):
  return randomized(FUSION, three, train=False)


def _by_hand(params, sequences, i, by_hand, inputs_by_hand):
  """Equations 8 and 9 for the modalities that one example has."""
  xs, counts = {}, {}
  for name in NAMES:
    x, mask = inputs_by_hand(params, name, sequences[name], i)
    if mask.any():
      xs[name], counts[name] = x, mask
  shared = np.asarray(params["bottleneck"][0], np.float64)
  for index in range(LAYERS):
    made = []
    for name, x in xs.items():
      layer = params[f"stack_{name}"][f"layer_{index:02d}"]
      n, mask = len(x), counts[name]
      if index >= 1:
        x = np.concatenate([x, shared])
        mask = np.concatenate([mask, np.ones(TOKENS, bool)])
      x = by_hand.block(layer, x, np.broadcast_to(mask, (len(x), len(x))))
      xs[name] = x[:n]
      made.append(x[n:])
    if index >= 1:
      shared = np.mean(made, axis=0)
  return {
    name: by_hand.layer_norm(params[f"stack_{name}"]["norm"], x)
    for name, x in xs.items()
  }


def test_modalities_exchange_through_the_mean_of_the_bottleneck(
  three, params, by_hand, inputs_by_hand
):
  got = jax.jit(lambda s: FUSION.apply({"params": params}, s, train=False))(
    three
  )
  for i, present in enumerate([NAMES, ("audio", "image"), ("text",)]):
    expected = _by_hand(params, three, i, by_hand, inputs_by_hand)
    assert set(expected) == set(present)
    for name in present:
      counts = np.asarray(got[name].mask[i])
      np.testing.assert_allclose(
        got[name].x[i][counts], expected[name][counts], rtol=1e-4, atol=1e-5
      )


def test_number_of_parameters(params):
  layer = 4 * (D * D + D) + 2 * D * MLP + MLP + D + 2 * 2 * D
  expected = 3 * (LAYERS * layer + 2 * D)  # Each has a stack.
  expected += TOKENS * D
  expected += 3 * D  # Embeddings of the modalities.
  expected += 12 * D + D  # Text is narrower.
  assert trees.num_params(params) == expected
