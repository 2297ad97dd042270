import jax
import numpy as np
import pytest

from mmjax.core import axes, trees
from mmjax.models.fusion import FUSIONS
from mmjax.models.fusion.joint import JointEncoder, joint
from mmjax.models.layers.options import StackOptions

D, MLP = 16, 24
SIZE = dict(embed_dim=D, num_layers=2, num_heads=2, mlp_dim=MLP)
NAMES = ("audio", "image", "text", "video")
FEED_FORWARD = 2 * D * MLP + MLP + D
# Attention and two norms.
REST = 4 * (D * D + D) + 2 * 2 * D
# An embedding of each modality; text is narrower than the fusion; a token and
# positions for what the clip dropped.
INPUTS = 4 * D + (12 * D + D) + (D + 3 * D)
KINDS = {
  "shared": joint(size=SIZE),
  "multiway": joint(size=SIZE, multiway=True),
  "fused": joint(size=SIZE, multiway=True, fused_layers=1),
}
# By layer: who has a feed-forward.
EXPERTS = {
  "shared": [[""], [""]],
  "multiway": [NAMES, NAMES],
  "fused": [NAMES, [""]],
}


@pytest.fixture(scope="module")
def made(four, randomized):
  return {kind: randomized(f, four, train=False) for kind, f in KINDS.items()}


def _layer(params, x, counts, names, by_hand):
  """A block of one example; `names` has the modality of each token."""
  y = by_hand.layer_norm(params["attention_norm"], x)
  seen = np.broadcast_to(counts, (len(x), len(x)))
  x = x + by_hand.attention(params["attention"], y, y, seen)
  y = by_hand.layer_norm(params["mlp_norm"], x)
  rows = [
    by_hand.mlp(params["mlp" if "mlp" in params else f"mlp_{name}"], row[None])
    for name, row in zip(names, y, strict=True)
  ]
  return x + np.concatenate(rows)


@pytest.mark.parametrize("kind", KINDS)
def test_one_stack_runs_over_all_tokens(
  four, made, by_hand, inputs_by_hand, kind
):
  params = made[kind]
  got = jax.jit(
    lambda s: KINDS[kind].apply({"params": params}, s, train=False)
  )(four)
  for i in range(3):
    parts = [inputs_by_hand(params, name, four[name], i) for name in NAMES]
    names = [n for n, (x, _) in zip(NAMES, parts, strict=True) for _ in x]
    x, counts = (np.concatenate(p) for p in zip(*parts, strict=True))
    for index in range(2):
      layer = params["stack"][f"layer_{index:02d}"]
      x = _layer(layer, x, counts, names, by_hand)
    expected = by_hand.layer_norm(params["stack"]["norm"], x)
    out = np.concatenate([got[name].x[i] for name in NAMES])
    np.testing.assert_allclose(
      out[counts], expected[counts], rtol=1e-4, atol=1e-5
    )
  for name in NAMES:
    assert got[name].positions is None
    assert got[name].num_prefix == four[name].num_prefix
    assert got[name].num_content == four[name].num_content


@pytest.mark.parametrize("kind", KINDS)
def test_number_of_parameters(made, kind):
  layers = EXPERTS[kind]
  feed_forwards = sum(len(experts) for experts in layers)
  assert trees.num_params(made[kind]) == (
    2 * REST + feed_forwards * FEED_FORWARD + 2 * D + INPUTS
  )
  for index, experts in enumerate(layers):
    layer = made[kind]["stack"][f"layer_{index:02d}"]
    assert {n for n in layer if n.startswith("mlp") and n != "mlp_norm"} == {
      f"mlp_{name}" if name else "mlp" for name in experts
    }


def test_parameters_carry_axis_names(four):
  boxed = jax.eval_shape(
    lambda: KINDS["shared"].init(jax.random.key(0), four, train=False)
  )["params"]
  assert boxed["modality_text"].names == (axes.EMBED,)
  assert boxed["input_text"]["kernel"].names == (axes.EMBED, axes.MLP)


def test_the_registry_makes_it_with_its_options():
  got = FUSIONS["joint"](size=SIZE, stack=dict(scan=True, remat="full"))
  assert isinstance(got, JointEncoder)
  assert got.options == StackOptions(scan=True, remat="full")
  assert got.size.embed_dim == 16


def test_dropped_tokens_may_stay_dropped(four, randomized):
  fusion = joint(size=SIZE, restore=False)
  params = randomized(fusion, four, train=False)
  assert "restore_video" not in params

  @jax.jit
  def run(sequences):
    return fusion.apply({"params": params}, sequences, train=False)

  got = run(four)
  # As if the clip had never had more tokens.
  fewer = four["video"].replace(positions=None, num_content=2)
  want = run({**four, "video": fewer})
  for name in NAMES:
    np.testing.assert_allclose(got[name].x, want[name].x, atol=1e-6)
  assert got["video"].positions is not None
  assert got["video"].num_content == 3


def test_a_class_token_of_its_own_joins(four, randomized, by_hand):
  """As in FLAVA: inputs pass projections, and nothing names their modality."""
  module = joint(size=SIZE, project=True, modality_embeddings=False, cls=True)
  normed = {m: four[m].replace(before_norm=-2.0 * four[m].x) for m in ("text",)}
  given = {"image": four["image"], **normed}
  params = randomized(module, given, train=False)
  assert set(params) == {"cls", "input_image", "input_text", "stack"}
  got = jax.jit(lambda s: module.apply({"params": params}, s, train=False))(
    given
  )
  assert list(got) == ["cls", "image", "text"]
  assert got["text"].before_norm is None
  for i in range(2):
    x = np.concatenate(
      [
        np.asarray(params["cls"])[0],
        by_hand.linear(params["input_image"], four["image"].x[i]),
        by_hand.linear(params["input_text"], -2.0 * four["text"].x[i]),
      ]
    )
    counts = [[True], four["image"].mask[i], four["text"].mask[i]]
    x = by_hand.stack(params["stack"], x, np.concatenate(counts))
    np.testing.assert_allclose(got["cls"].x[i], x[:1], rtol=1e-4, atol=1e-5)
    image = x[1 : 1 + len(four["image"].x[i])]
    np.testing.assert_allclose(got["image"].x[i], image, rtol=1e-4, atol=1e-5)


def test_a_class_token_does_not_count_where_nothing_does(four, randomized):
  module = joint(size=SIZE, cls=True)
  image = {"image": four["image"]}
  params = randomized(module, image, train=False)
  got = module.apply({"params": params}, image, train=False)
  np.testing.assert_array_equal(got["cls"].mask[:, 0], [True, True, False])
