"""What holds of every fusion."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mmjax.core import axes, errors, precision, trees
from mmjax.models.fusion import FUSIONS
from mmjax.train.flops import count_flops

D, MLP = 16, 24
KEY = jax.random.key(0)
# Two queries, two bottleneck tokens, and layers enough for words to reach a
# picture.
MADE = {
  "bottleneck": dict(name="bottleneck", num_layers=2, num_tokens=2),
  "cross_attention": dict(name="cross_attention", num_layers=1),
  "film": dict(name="film", num_layers=1),
  "joint": dict(name="joint", num_layers=1),
  "multiway": dict(name="joint", num_layers=2, multiway=True, fused_layers=1),
  "resampler": dict(
    name="resampler", num_layers=1, num_queries=2, resampler_layers=1
  ),
}
SUBSETS = [
  names
  for k in range(1, 5)
  for names in itertools.combinations(("audio", "image", "text", "video"), k)
]
every_fusion = pytest.mark.parametrize("kind", MADE)


def _fusion(kind, **fields):
  section = MADE[kind] | fields
  num_layers = section.pop("num_layers")
  size = dict(embed_dim=D, num_layers=num_layers, num_heads=2, mlp_dim=MLP)
  return FUSIONS[section.pop("name")](size=size, **section)


def _shapes(fusion, sequences):
  """Shapes of outputs, of their masks, and of parameters."""

  def run(sequences):
    out, variables = fusion.init_with_output(KEY, sequences, train=False)
    assert all(s.positions is None for s in out.values())
    return (
      {name: s.x for name, s in out.items()},
      {name: s.mask for name, s in out.items()},
      variables["params"],
    )

  return jax.eval_shape(run, sequences)


@pytest.fixture(scope="module")
def whole(four):
  """What `_shapes` says with all modalities."""
  return functools.cache(lambda kind: _shapes(_low(kind), four))


def _low(kind):
  """One layer of it, in bfloat16."""
  fields = dict(num_layers=1)
  if kind == "multiway":
    fields["fused_layers"] = 0
  return _fusion(kind, precision=precision.POLICIES["bfloat16"], **fields)


@pytest.fixture(scope="module")
def params(four, randomized):
  return functools.cache(
    lambda kind: randomized(_fusion(kind), four, train=False)
  )


@functools.cache
def _compiled(kind):
  """Outputs, and gradients by parameters and inputs of a loss on them.

  The loss counts the tokens that count, or all: what has a gradient must not
  have an infinite one.
  """

  @jax.jit
  def run(params, sequences, count_all):
    def loss(params, xs):
      given = {name: sequences[name].replace(x=x) for name, x in xs.items()}
      out = _fusion(kind).apply({"params": params}, given, train=False)
      total = 0.0
      for s in out.values():
        counts = (s.mask | count_all)[:, :, None]
        total += jnp.sum(jnp.where(counts, s.x, 0.0) ** 3)
      return total, out

    xs = {name: s.x for name, s in sequences.items()}
    grads, out = jax.grad(loss, argnums=(0, 1), has_aux=True)(params, xs)
    return out, grads

  return run


@every_fusion
def test_any_subset_goes_in_and_out(four, whole, kind):
  known = trees.flatten(whole(kind)[2])
  # Content and prefix of each; the clip's dropped tokens come back.
  lengths = dict(audio=4, image=5, text=3, video=3)
  seen = {}
  for names in SUBSETS:
    given = {name: four[name] for name in names}
    xs, masks, part = (
      whole(kind) if len(names) == 4 else _shapes(_low(kind), given)
    )
    expected = {
      name: (3, 2 if kind == "resampler" else lengths[name]) for name in names
    }
    assert {name: x.shape[:2] for name, x in xs.items()} == expected
    assert {name: mask.shape for name, mask in masks.items()} == expected
    assert all(x.shape[2] == D for x in xs.values())
    # One tree of parameters, of which each subset uses a part.
    part = trees.flatten(part)
    assert {name: leaf.shape for name, leaf in part.items()} == {
      name: known[name].shape for name in part
    }
    if len(names) <= 2:
      seen |= part
  assert seen.keys() == known.keys()


@every_fusion
def test_what_stands_in_absent_slots_changes_nothing(four, params, kind):
  rng = np.random.default_rng(9)

  def spoil(sequence):
    garbage = 1e3 * rng.normal(size=sequence.x.shape)
    x = jnp.where(sequence.mask[:, :, None], sequence.x, garbage)
    return sequence.replace(x=x.astype(jnp.float32))

  spoiled = {name: spoil(s) for name, s in four.items()}
  run = _compiled(kind)
  out, grads = run(params(kind), four, False)
  got, got_grads = run(params(kind), spoiled, False)
  for name, sequence in four.items():
    counts = np.asarray(out[name].mask)
    assert np.any(counts) and not np.all(counts)
    np.testing.assert_array_equal(got[name].mask, counts)
    np.testing.assert_array_equal(
      np.asarray(got[name].x)[counts], np.asarray(out[name].x)[counts]
    )
    grad = np.asarray(got_grads[1][name])
    absent = ~np.asarray(sequence.mask)
    np.testing.assert_array_equal(grad[absent], 0.0)
    assert np.all(np.any(grad[~absent] != 0, axis=-1))
  jax.tree.map(np.testing.assert_array_equal, got_grads[0], grads[0])


@every_fusion
def test_an_example_that_lacks_a_modality_is_as_a_batch_without(
  four, params, kind
):
  out, _ = _compiled(kind)(params(kind), four, False)

  @jax.jit
  def run(params, sequences):
    return _fusion(kind).apply({"params": params}, sequences, train=False)

  # What counts of the second example, cut out.
  alone = {
    name: four[name].replace(
      x=four[name].x[1:2, :n], mask=four[name].mask[1:2, :n]
    )
    for name, n in dict(audio=3, image=5).items()
  }
  for name, sequence in run(params(kind), alone).items():
    n = sequence.x.shape[1]
    np.testing.assert_array_equal(sequence.mask, True)
    np.testing.assert_allclose(
      out[name].x[1, :n], sequence.x[0], rtol=1e-4, atol=1e-5
    )
    np.testing.assert_array_equal(out[name].mask[1, n:], False)
  for name in ("text", "video"):
    assert not np.any(out[name].mask[1])


@every_fusion
def test_modalities_that_count_influence_each_other(four, params, kind):
  run = _compiled(kind)
  out, _ = run(params(kind), four, False)
  turned = four | {"text": four["text"].replace(x=-four["text"].x)}
  got, _ = run(params(kind), turned, False)
  for name in ("audio", "image", "video"):
    change = np.abs(np.asarray(got[name].x - out[name].x))
    assert change[0].max() > 1e-3
    assert change[1].max() == 0  # It has no text.


@every_fusion
def test_gradients_are_finite_with_everything_absent(four, params, kind):
  absent = {
    name: s.replace(x=jnp.zeros_like(s.x), mask=jnp.zeros_like(s.mask))
    for name, s in four.items()
  }
  out, grads = _compiled(kind)(params(kind), absent, True)
  assert not any(np.any(s.mask) for s in out.values())
  leaves = jax.tree.leaves((grads, {name: s.x for name, s in out.items()}))
  assert all(np.all(np.isfinite(leaf)) for leaf in leaves)
  assert any(np.any(leaf != 0) for leaf in jax.tree.leaves(grads))


@every_fusion
def test_the_order_of_modalities_does_not_matter(four, params, kind):
  def traced(names):
    def run(sequences):
      given = {name: sequences[name] for name in names}
      out = _fusion(kind).apply({"params": params(kind)}, given, train=False)
      return {name: s.x for name, s in out.items()}

    return str(jax.make_jaxpr(run)(four))

  assert traced(("text", "image")) == traced(("image", "text"))


@every_fusion
@pytest.mark.parametrize("train", [False, True])
def test_dropout_acts_in_training_only(four, params, kind, train):
  noisy = _fusion(kind, stack=dict(dropout_rate=0.5))
  pair = {"audio": four["audio"], "image": four["image"]}
  acts = []

  def note(next_fn, args, kwargs, context):
    if isinstance(context.module, nn.Dropout):
      assert context.module.rate == 0.5
      acts.append(not kwargs["deterministic"])
    return next_fn(*args, **kwargs)

  def run(sequences):
    rngs = {"dropout": KEY} if train else {}  # No key is asked for.
    out = noisy.apply(
      {"params": params(kind)}, sequences, train=train, rngs=rngs
    )
    return {name: s.x for name, s in out.items()}

  with nn.intercept_methods(note):
    jaxpr = str(jax.make_jaxpr(run)(pair))
  assert acts and all(a == train for a in acts)
  assert ("random_bits[" in jaxpr) == train


def _layer(n):
  """FLOPs of a layer over n tokens: projections, MLP, two products."""
  return 2 * n * (4 * D * D + 2 * D * MLP) + 2 * 2 * n * n * D


def _cross(n, m):
  """FLOPs of attention of n tokens to m others."""
  return 2 * 2 * n * D * D + 2 * 2 * m * D * D + 2 * 2 * n * m * D


def _feed(n):
  """FLOPs of a feed-forward of n tokens."""
  return 2 * n * 2 * D * MLP


def _modulation():
  """FLOPs of scales and shifts of one modality by one other."""
  return 2 * D * 2 * D


def _reader(n):
  """FLOPs of two queries that read n tokens and themselves."""
  return _cross(2, n + 2) + 2 * 2 * 2 * D * MLP


TEXT = 2 * 3 * 12 * D  # FLOPs of the projection of narrower text.
# FLOPs of one example with a picture (5 tokens), and with text (3) too.
FLOPS = {
  "bottleneck": (2 * _layer(5 + 2), 2 * (_layer(5 + 2) + _layer(3 + 2)) + TEXT),
  "cross_attention": (
    _layer(5),
    _layer(5) + _layer(3) + _cross(5, 3) + _cross(3, 5) + TEXT,
  ),
  "film": (_feed(5), _feed(5) + _feed(3) + 2 * _modulation() + TEXT),
  "joint": (_layer(5), _layer(5 + 3) + TEXT),
  "multiway": (2 * _layer(5), 2 * _layer(5 + 3) + TEXT),
  "resampler": (
    _reader(5) + _layer(2),
    _reader(5) + _reader(3) + _layer(2 + 2) + TEXT,
  ),
}


@every_fusion
def test_a_modality_that_the_batch_lacks_costs_nothing(four, params, kind):
  def flops(*names):
    given = {name: jax.tree.map(lambda x: x[:1], four[name]) for name in names}
    return count_flops(
      lambda s: _fusion(kind).apply({"params": params(kind)}, s, train=False),
      given,
    )

  assert (flops("image"), flops("image", "text")) == FLOPS[kind]


@every_fusion
def test_dtypes_and_axis_names(whole, kind):
  xs, _, params = whole(kind)
  assert all(x.dtype == jnp.bfloat16 for x in xs.values())
  for box in jax.tree.leaves(params, is_leaf=lambda x: hasattr(x, "names")):
    assert box.value.dtype == jnp.float32
    assert len(box.names) == box.value.ndim
    assert set(box.names) <= axes.PARAMETER_AXES | {None}


@every_fusion
def test_nothing_to_fuse_is_refused(kind):
  with pytest.raises(errors.UserError, match="at least one modality"):
    _fusion(kind).init(KEY, {}, train=False)


@pytest.mark.parametrize(
  ("kind", "fields", "match"),
  [
    ("joint", dict(fused_layers=1), "fused_layers=1 without multiway"),
    (
      "multiway",
      dict(fused_layers=3),
      "fused_layers=3, expected 0 to num_layers=2",
    ),
    ("bottleneck", dict(fusion_start=2), "fusion_start=2, expected 0 to 1"),
    ("bottleneck", dict(num_tokens=0), "num_tokens=0, expected 1"),
    ("bottleneck", dict(stack=dict(scan=True)), "stack.scan=False"),
    ("cross_attention", dict(stack=dict(scan=True)), "stack.scan=False"),
    ("film", dict(stack=dict(scan=True)), "stack.scan=False"),
    ("resampler", dict(modalities=("imge",)), "Did you mean 'image'"),
    ("resampler", dict(num_queries=0), "num_queries=0, expected 1"),
    ("resampler", dict(resampler_layers=0), "resampler_layers=0, expected 1"),
  ],
)
def test_what_makes_no_sense_is_refused(kind, fields, match):
  with pytest.raises(errors.UserError, match=match):
    _fusion(kind, **fields)
