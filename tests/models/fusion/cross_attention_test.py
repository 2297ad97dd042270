import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core import trees
from mmjax.models.fusion.cross_attention import cross_attention

D, MLP = 16, 24
SIZE = dict(embed_dim=D, num_layers=2, num_heads=2, mlp_dim=MLP)
NAMES = ("audio", "image", "text")
NORM = 2 * D
ATTENTION = 4 * (D * D + D)


def _by_hand(fusion, params, sequences, i, by_hand, inputs_by_hand):
  """One example: loops over layers and modalities, nothing concatenated."""
  xs, counts = {}, {}
  for name, sequence in sequences.items():
    xs[name], counts[name] = inputs_by_hand(params, name, sequence, i)
  for index in range(2):
    before = dict(xs)
    for name, x in before.items():
      layer = params[f"stack_{name}"][f"layer_{index:02d}"]
      if fusion.self_attention:
        y = by_hand.layer_norm(layer["attention_norm"], x)
        seen = np.broadcast_to(counts[name], (len(x), len(x)))
        x = x + by_hand.attention(layer["attention"], y, y, seen)
      rows = [
        row
        for other in sorted(before)
        if other != name
        for row, real in zip(before[other], counts[other], strict=True)
        if real
      ]
      if rows:
        x = x + by_hand.attention(
          layer["cross_attention"],
          by_hand.layer_norm(layer["cross_attention_norm"], x),
          by_hand.layer_norm(layer["context_norm"], np.stack(rows)),
          np.ones((len(x), len(rows)), bool),
        )
      if fusion.feed_forward:
        y = by_hand.layer_norm(layer["mlp_norm"], x)
        x = x + by_hand.mlp(layer["mlp"], y)
      xs[name] = x
  return {
    name: by_hand.layer_norm(params[f"stack_{name}"]["norm"], x)
    for name, x in xs.items()
  }


@pytest.mark.parametrize("rest", [True, False], ids=["block", "equation"])
def test_each_modality_attends_to_all_the_others(
  four, randomized, by_hand, inputs_by_hand, rest
):
  three = {name: four[name] for name in NAMES}
  fusion = cross_attention(size=SIZE, self_attention=rest, feed_forward=rest)
  params = randomized(fusion, three, train=False)
  got = jax.jit(lambda s: fusion.apply({"params": params}, s, train=False))(
    three
  )
  for i in range(3):
    expected = _by_hand(fusion, params, three, i, by_hand, inputs_by_hand)
    for name in NAMES:
      counts = np.asarray(got[name].mask[i])
      np.testing.assert_allclose(
        got[name].x[i][counts], expected[name][counts], rtol=1e-4, atol=1e-5
      )


def _num_params(sequences, **fields):
  fusion = cross_attention(size=SIZE, **fields)
  shapes = jax.eval_shape(
    lambda: fusion.init(jax.random.key(0), sequences, train=False)
  )
  return trees.num_params(shapes["params"]["stack_image"])


def test_cross_attention_has_parameters_if_two_modalities_met(four):
  pair = {"image": four["image"], "audio": four["audio"]}
  alone = {"image": four["image"]}
  cross = 2 * (ATTENTION + 2 * NORM)  # Norms of queries and of the context.
  rest = 2 * (ATTENTION + NORM + 2 * D * MLP + MLP + D + NORM) + NORM
  assert _num_params(pair) == cross + rest
  assert _num_params(alone) == rest
  bare = dict(self_attention=False, feed_forward=False)
  assert _num_params(pair, **bare) == cross + NORM


def test_post_norm_streams_have_no_norm_of_the_context(four):
  fusion = cross_attention(size=SIZE, stack=dict(norm_position="post"))
  pair = {"image": four["image"], "audio": four["audio"]}
  params = jax.eval_shape(
    lambda: fusion.init(jax.random.key(0), pair, train=False)
  )["params"]
  names = trees.flatten(params)
  assert any("/cross_attention_norm/" in name for name in names)
  assert not any("context_norm" in name for name in names)
  assert "norm" not in params["stack_image"]


def test_remat_computes_again_what_it_does_not_keep(four, randomized):
  size = SIZE | dict(num_layers=1)
  plain = cross_attention(size=size)
  given = {"image": four["image"], "audio": four["audio"]}
  params = randomized(plain, given, train=False)

  def products(fusion):
    def loss(params):
      out = fusion.apply({"params": params}, given, train=False)
      return jnp.sum(out["image"].x)

    return str(jax.make_jaxpr(jax.grad(loss))(params)).count("dot_general[")

  again = cross_attention(size=size, stack=dict(remat="full"))
  assert products(again) > products(plain)
