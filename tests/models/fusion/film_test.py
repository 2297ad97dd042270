import jax
import numpy as np

from mmjax.models.fusion.film import film

SIZE = dict(embed_dim=16, num_layers=2, num_heads=2, mlp_dim=24)
NAMES = ("audio", "image", "text")


def _by_hand(params, sequences, i, by_hand, inputs_by_hand):
  """One example: loops over layers, modalities, and what speaks to them."""
  xs, counts = {}, {}
  for name, sequence in sequences.items():
    xs[name], counts[name] = inputs_by_hand(params, name, sequence, i)
  for index in range(2):
    means = {
      name: x[np.asarray(counts[name])].mean(axis=0)
      for name, x in xs.items()
      if any(counts[name])
    }
    for name, x in xs.items():
      prefix = f"{name}_{index:02d}"
      h = by_hand.layer_norm(params[f"{prefix}_norm"], x)
      gamma, beta = np.zeros(16), np.zeros(16)
      for other, mean in means.items():
        if other != name:
          kernel = np.asarray(params[f"{prefix}_by_{other}"]["kernel"])
          gamma = gamma + mean @ kernel[:, :16]
          beta = beta + mean @ kernel[:, 16:]
      h = (1 + gamma) * h + beta
      y = by_hand.layer_norm(params[f"{prefix}_mlp_norm"], h)
      xs[name] = h + by_hand.mlp(params[f"{prefix}_mlp"], y)
  return {
    name: by_hand.layer_norm(params[f"{name}_norm"], x)
    for name, x in xs.items()
  }


def test_tokens_are_scaled_and_shifted_by_the_others_means(
  four, randomized, by_hand, inputs_by_hand
):
  three = {name: four[name] for name in NAMES}
  fusion = film(size=SIZE)
  params = randomized(fusion, three, train=False)
  got = jax.jit(lambda s: fusion.apply({"params": params}, s, train=False))(
    three
  )
  for i in range(3):
    expected = _by_hand(params, three, i, by_hand, inputs_by_hand)
    for name in NAMES:
      mask = np.asarray(got[name].mask[i])
      np.testing.assert_allclose(
        got[name].x[i][mask], expected[name][mask], rtol=1e-4, atol=1e-5
      )
