"""Relative positions against loops over pairs of cells."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mmjax.core import axes, errors
from mmjax.models.encoders.vit import vit
from mmjax.models.layers.options import StackOptions
from mmjax.models.layers.positions import grid_coordinates
from mmjax.models.layers.relative import RelativeBias, relative
from mmjax.models.layers.transformer import Stack
from mmjax.sharding import rules
from mmjax.sharding.mesh import MeshShape, make_mesh

GRID, PREFIX, KEY = (2, 3), 2, jax.random.key(0)
PATCH, SIDE = 4, 8
SIZE = dict(embed_dim=16, num_layers=1, num_heads=2, mlp_dim=24)


def _places():
  return jnp.asarray(grid_coordinates(GRID))[None]


def test_pairs_of_the_same_distance_share_a_row():
  pairs = relative(_places(), PREFIX, GRID)
  cells = [(r, c) for r in range(2) for c in range(3)]
  distances = [(r, c) for r in range(-1, 2) for c in range(-2, 3)]
  rows = np.asarray(pairs.rows[0])
  assert pairs.num_rows == len(distances) + 3 and rows.shape == (8, 8)
  for i in range(8):
    for j in range(8):
      if i < PREFIX or j < PREFIX:
        expected = {(True, False): 15, (False, True): 16, (True, True): 17}[
          i < PREFIX, j < PREFIX
        ]
      else:
        query, key = cells[i - PREFIX], cells[j - PREFIX]
        apart = query[0] - key[0], query[1] - key[1]
        expected = distances.index(apart)
      assert rows[i, j] == expected


def test_each_head_has_a_bias_for_each_row(randomized):
  pairs, module = relative(_places(), PREFIX, GRID), RelativeBias(3)
  params = randomized(module, pairs)
  got = module.apply({"params": params}, pairs)
  table = np.asarray(params["table"])
  assert table.shape == (18, 3) and got.shape == (1, 3, 8, 8)
  for head in range(3):
    expected = table[np.asarray(pairs.rows[0]), head]
    np.testing.assert_array_equal(got[0, head], expected)


@pytest.fixture(scope="module")
def image():
  pixels = np.random.default_rng(5).integers(0, 256, (2, SIDE, SIDE, 3))
  return jnp.asarray(pixels, jnp.uint8)


def _encoder(kind="layer"):
  return vit(
    image_size=SIDE,
    patch_size=PATCH,
    size=SIZE,
    positions="none",
    hidden="drop",
    pool="cls",
    stack=StackOptions(relative_positions=kind),
  )


def test_without_positions_only_the_bias_tells_patches_apart(image, randomized):
  """Patches that change places take their features along, unless it does."""
  encoder = _encoder()
  params = randomized(encoder, image, train=False)
  flipped = jnp.concatenate([image[:, PATCH:], image[:, :PATCH]], axis=1)

  @jax.jit
  def content(params, pixels):
    return encoder.apply({"params": params}, pixels, train=False).content

  moved = np.asarray([2, 3, 0, 1])
  as_it_was, got = content(params, image), content(params, flipped)
  assert np.abs(got[:, moved] - as_it_was).max() > 1e-3
  plain = jax.tree_util.tree_map_with_path(
    lambda path, x: 0 * x if "relative" in str(path) else x, params
  )
  as_it_was, got = content(plain, image), content(plain, flipped)
  np.testing.assert_allclose(got[:, moved], as_it_was, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["layer", "shared"])
def test_dropped_patches_take_their_pairs_along(image, randomized, kind):
  """As if the others could not be attended to."""
  encoder, hidden = _encoder(kind), jnp.asarray([[1], [2]])
  params = randomized(encoder, image, train=False)
  mask = jnp.arange(4)[None] != hidden
  run = jax.jit(functools.partial(encoder.apply, train=False))
  got = run({"params": params}, image, hidden=hidden)
  expected = run({"params": params}, image, mask=mask)
  keep = np.concatenate([np.ones((2, 1), bool), mask], axis=1)
  rows = np.asarray(expected.x)[keep].reshape(got.x.shape)
  np.testing.assert_allclose(got.x, rows, rtol=1e-4, atol=1e-5)


def _stack(**options):
  return Stack(
    2, 2, 24, StackOptions(relative_positions="layer", **options)
  ), relative(_places(), 0, GRID)


def _loss(module, pairs, x):
  mask = jnp.ones((len(x), 1, 6), bool)
  weights = jnp.sin(jnp.arange(x.size, dtype=jnp.float32)).reshape(x.shape)

  def loss(params):
    y = module.apply(
      {"params": params}, x, mask=mask, train=False, relative=pairs
    )
    return jnp.sum(weights * y)

  return loss


@pytest.fixture(scope="module")
def layers(randomized):
  """Unrolled layers on some tokens: parameters and gradients."""
  x = np.random.default_rng(6).normal(size=(4, 6, 16))
  x, mask = jnp.asarray(x, jnp.float32), jnp.ones((4, 1, 6), bool)
  module, pairs = _stack()
  params = randomized(module, x, mask=mask, train=False, relative=pairs)
  return x, params, jax.jit(jax.grad(_loss(module, pairs, x)))(params)


def test_scanned_layers_have_the_same_gradients(layers):
  x, params, gradients = layers
  module, pairs = _stack(scan=True, remat="full")

  def stacked(tree):
    each = [tree[f"layer_{i:02d}"] for i in range(2)]
    both = jax.tree.map(lambda a, b: jnp.stack([a, b]), *each)
    return {"layers": both, "norm": tree["norm"]}

  got = jax.jit(jax.grad(_loss(module, pairs, x)))(stacked(params))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
    got,
    stacked(gradients),
  )


def test_heads_that_are_split_have_the_same_gradients(layers):
  x, params, gradients = layers
  module, pairs = _stack()
  mesh = make_mesh(MeshShape(data=2, tensor=2), jax.devices()[:4])
  with jax.set_mesh(mesh), nn.logical_axis_rules(rules.rules("fsdp_tensor")):
    got = jax.jit(jax.grad(_loss(module, pairs, x)))(params)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
    got,
    gradients,
  )


def test_the_table_is_split_over_heads():
  pairs = relative(_places(), 0, GRID)
  made = jax.eval_shape(RelativeBias(2).init, KEY, pairs)
  assert made["params"]["table"].names == (axes.POSITION, axes.HEADS)


def test_where_patches_are_unknown_it_is_refused(image):
  stack = StackOptions(relative_positions="shared")
  x, mask = jnp.zeros((1, 3, 16)), jnp.ones((1, 1, 3), bool)
  with pytest.raises(errors.UserError, match="only the stack of .* 'vit'"):
    Stack(1, 2, 24, stack).init(KEY, x, mask=mask, train=False)
  with pytest.raises(errors.UserError, match="leave config.data.image.patches"):
    vit(patch_size=4, size=SIZE, image_patches=(4, 4), stack=stack)
  larger = jnp.zeros((1, 3 * PATCH, 3 * PATCH, 3), jnp.uint8)
  with pytest.raises(errors.UserError, match="9 patches; .* are of 2x2"):
    _encoder().init(KEY, larger, train=False)
  with pytest.raises(errors.UserError, match="Did you mean 'layer'"):
    dataclasses.replace(stack, relative_positions="layers")
