import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core import errors, trees
from mmjax.models.fusion.resampler import resampler

D, MLP, QUERIES = 16, 24, 3
SIZE = dict(embed_dim=D, num_layers=1, num_heads=2, mlp_dim=MLP)
NAMES = ("audio", "image", "text", "video")
FIELDS = dict(num_queries=QUERIES, resampler_layers=2)
# The options of each of the two papers.
KINDS = {
  "flamingo": dict(attend_queries=True, self_attention=False),
  "q_former": dict(attend_queries=False, self_attention=True),
}


def _read(params, x, real, options, by_hand):
  """The queries after two layers over the tokens that are real."""
  queries = np.asarray(params["queries"][0], np.float64)
  stack = params["stack"]
  for index in range(2):
    layer = stack[f"layer_{index:02d}"]
    context = x[real]
    if options["attend_queries"]:
      context = np.concatenate([context, queries])
    if options["self_attention"]:
      y = by_hand.layer_norm(layer["attention_norm"], queries)
      seen = np.ones((QUERIES, QUERIES), bool)
      queries = queries + by_hand.attention(layer["attention"], y, y, seen)
    queries = queries + by_hand.attention(
      layer["cross_attention"],
      by_hand.layer_norm(layer["cross_attention_norm"], queries),
      by_hand.layer_norm(layer["context_norm"], context),
      np.ones((QUERIES, len(context)), bool),
    )
    y = by_hand.layer_norm(layer["mlp_norm"], queries)
    queries = queries + by_hand.mlp(layer["mlp"], y)
  return by_hand.layer_norm(stack["norm"], queries)


@pytest.mark.parametrize(
  ("kind", "modalities"), [("flamingo", ()), ("q_former", ("image", "video"))]
)
def test_queries_read_tokens_and_a_joint_stack_mixes_them(
  four, randomized, by_hand, inputs_by_hand, kind, modalities
):
  fusion = resampler(size=SIZE, modalities=modalities, **FIELDS, **KINDS[kind])
  params = randomized(fusion, four, train=False)
  got = jax.jit(lambda s: fusion.apply({"params": params}, s, train=False))(
    four
  )
  for i in range(3):
    names, rows = [], []
    for name in NAMES:
      x, real = inputs_by_hand(params, name, four[name], i)
      if not real.any():
        continue
      if name in (modalities or NAMES):
        reader = params[f"resampler_{name}"]
        x = _read(reader, x, real, KINDS[kind], by_hand)
      else:
        x = x[real]
      names.append(name)
      rows.append(x)
    x = np.concatenate(rows)
    expected = by_hand.stack(params["stack"], x, np.ones(len(x), bool))
    out = [got[n].x[i][np.asarray(got[n].mask[i])] for n in names]
    np.testing.assert_allclose(
      np.concatenate(out), expected, rtol=1e-4, atol=1e-5
    )


def _params(four, **fields):
  """Shapes of parameters."""
  fusion = resampler(size=SIZE, **FIELDS, **fields)
  return jax.eval_shape(
    lambda: fusion.init(jax.random.key(0), four, train=False)
  )["params"]


def test_resampled_sequences_refuse_to_be_indexed_by_position(four):
  fusion = resampler(size=SIZE, modalities=("image",), **FIELDS)
  indices = jnp.zeros((3, 1), jnp.int32)

  def run(sequences):
    out, _ = fusion.init_with_output(jax.random.key(0), sequences, train=False)
    picture = out["image"]
    assert (picture.num_prefix, picture.num_content) == (0, QUERIES)
    assert picture.content.shape == (3, QUERIES, D)
    with pytest.raises(errors.UserError, match=r"take .*model\.fusion\.moda"):
      picture.take(indices)
    # Text is as it was: masked words can be predicted given the picture.
    return out["text"].take(indices)

  assert jax.eval_shape(run, four).shape == (3, 1, D)


def test_only_what_is_named_gets_queries(four):
  params = _params(four, modalities=["image"])
  names = {n for n in params if n.startswith("resampler_")}
  assert names == {"resampler_image"}
  attention = 4 * (D * D + D)
  layer = attention + 2 * D * MLP + MLP + D + 3 * 2 * D
  assert (
    trees.num_params(params["resampler_image"])
    == QUERIES * D + 2 * layer + 2 * D
  )


def test_a_scanned_stack_leaves_the_resampler_unrolled(four):
  params = _params(four, stack=dict(scan=True))
  assert set(params["stack"]) == {"layers", "norm"}
  assert set(params["resampler_image"]["stack"]) == {
    "layer_00",
    "layer_01",
    "norm",
  }
