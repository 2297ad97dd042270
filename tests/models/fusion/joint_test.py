import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core import axes, errors, precision, trees
from mmjax.core.sequence import Sequence
from mmjax.models.fusion import FUSIONS
from mmjax.models.fusion.joint import JointEncoder, joint
from mmjax.models.layers.options import StackOptions

SIZE = dict(embed_dim=16, num_layers=1, num_heads=2, mlp_dim=24)
# Attention, feed-forward, three norms.
STACK = 4 * (16 * 16 + 16) + (16 * 24 + 24) + (24 * 16 + 16) + 3 * 2 * 16
KEY = jax.random.key(0)
FUSION = joint(size=SIZE)


@pytest.fixture(scope="module")
def sequences():
  """A picture with CLS; a narrower text, padded; sound with dropped tokens."""
  rng = np.random.default_rng(8)

  def normal(*shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)

  text_mask = np.ones((2, 3), bool)
  text_mask[1, 1:] = False
  return {
    "text": Sequence(normal(2, 3, 12), jnp.asarray(text_mask), num_content=3),
    "image": Sequence(
      normal(2, 5, 16), jnp.ones((2, 5), bool), num_prefix=1, num_content=4
    ),
    "audio": Sequence(
      normal(2, 2, 16),
      jnp.ones((2, 2), bool),
      jnp.asarray([[0, 2], [1, 2]]),
      num_content=3,
    ),
  }


@pytest.fixture(scope="module")
def params(sequences, randomized):
  return randomized(FUSION, sequences, train=False)


@pytest.fixture(scope="module")
def fuse(params):
  @jax.jit
  def run(sequences):
    return FUSION.apply({"params": params}, sequences, train=False)

  return run


def _inputs(params, name, sequence, i, by_hand):
  """What one example's modality brings into the stack, and its mask."""
  x = np.asarray(sequence.x[i], np.float64)
  mask = np.asarray(sequence.mask[i])
  if f"input_{name}" in params:
    x = by_hand.linear(params[f"input_{name}"], x)
  if sequence.positions is not None:
    restore = params[f"restore_{name}"]
    rows = np.asarray(restore["mask_token"]) + np.asarray(
      restore["positions"]["table"]
    )
    rows[np.asarray(sequence.positions[i])] = x
    x, mask = rows, np.ones(len(rows), bool)
  return x + np.asarray(params[f"modality_{name}"]), mask


@pytest.mark.parametrize(
  "names",
  [
    ("image",),
    ("text",),
    ("audio",),
    ("text", "image"),
    ("audio", "text"),
    ("text", "image", "audio"),
  ],
  ids="+".join,
)
def test_any_subset_is_one_stack_over_all_tokens(
  sequences, params, fuse, by_hand, names
):
  got = fuse({name: sequences[name] for name in names})
  assert set(got) == set(names)
  for i in range(2):
    parts = [
      _inputs(params, name, sequences[name], i, by_hand) for name in names
    ]
    expected = by_hand.stack(
      params["stack"],
      np.concatenate([x for x, _ in parts]),
      np.concatenate([mask for _, mask in parts]),
    )
    out = np.concatenate([got[name].x[i] for name in names])
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)
  for name in names:
    assert got[name].positions is None
    assert got[name].num_prefix == sequences[name].num_prefix
    assert got[name].num_content == sequences[name].num_content


def test_the_order_of_modalities_does_not_matter(sequences, params):
  @functools.partial(jax.jit, static_argnums=0)
  def run(names, sequences):  # jit sorts the keys of its arguments.
    given = {name: sequences[name] for name in names}
    out = FUSION.apply({"params": params}, given, train=False)
    return {name: sequence.x for name, sequence in out.items()}

  got = run(("text", "image"), sequences)
  other = run(("image", "text"), sequences)
  for name in got:
    np.testing.assert_array_equal(got[name], other[name])


def test_padded_text_never_influences_what_counts(sequences, fuse):
  text = sequences["text"]
  other = text.replace(x=jnp.where(text.mask[:, :, None], text.x, 1e3 * text.x))
  got = fuse({"image": sequences["image"], "text": text})
  changed = fuse({"image": sequences["image"], "text": other})
  np.testing.assert_array_equal(got["image"].x, changed["image"].x)
  counts = np.asarray(text.mask)
  np.testing.assert_array_equal(
    np.asarray(got["text"].x)[counts], np.asarray(changed["text"].x)[counts]
  )


def test_text_that_counts_influences_the_picture(sequences, fuse):
  text = sequences["text"]
  got = fuse({"image": sequences["image"], "text": text})
  changed = fuse({"image": sequences["image"], "text": text.replace(x=-text.x)})
  assert not np.allclose(got["image"].x, changed["image"].x, atol=1e-3)


def test_number_of_parameters(params):
  expected = STACK + 3 * 16  # One embedding a modality.
  expected += 12 * 16 + 16  # Text is narrower than the fusion.
  expected += 16 + 3 * 16  # A token and positions for what audio dropped.
  assert trees.num_params(params) == expected


def test_parameters_carry_axis_names(sequences):
  boxed = jax.eval_shape(lambda: FUSION.init(KEY, sequences, train=False))
  boxed = boxed["params"]
  assert boxed["modality_text"].names == (axes.EMBED,)
  assert boxed["input_text"]["kernel"].names == (axes.EMBED, axes.MLP)


def test_training_turns_dropout_on(sequences, params, fuse):
  noisy = FUSION.clone(options=StackOptions(dropout_rate=0.5))
  given = {"image": sequences["image"]}

  @jax.jit
  def run(key):
    out = noisy.apply(
      {"params": params}, given, train=True, rngs={"dropout": key}
    )
    return out["image"].x

  first, again, other = run(KEY), run(KEY), run(jax.random.key(1))
  np.testing.assert_array_equal(first, again)
  assert np.any(np.asarray(first) != np.asarray(other))
  # Without training, no key is asked for.
  off = jax.jit(
    lambda: noisy.apply({"params": params}, given, train=False)["image"].x
  )()
  np.testing.assert_allclose(off, fuse(given)["image"].x, rtol=1e-5, atol=1e-6)


def test_bfloat16_activations_over_float32_parameters(sequences):
  fusion = joint(size=SIZE, precision=precision.POLICIES["bfloat16"])

  def run():
    out, variables = fusion.init_with_output(KEY, sequences, train=False)
    return [s.x for s in out.values()], variables

  xs, variables = jax.eval_shape(run)
  assert all(x.dtype == jnp.bfloat16 for x in xs)
  assert all(p.dtype == jnp.float32 for p in jax.tree.leaves(variables))


def test_nothing_to_fuse_is_refused():
  with pytest.raises(errors.UserError, match="at least one modality"):
    FUSION.init(KEY, {}, train=False)


def test_the_registry_makes_it_with_its_options():
  got = FUSIONS["joint"](size=SIZE, stack=dict(scan=True, remat="full"))
  assert isinstance(got, JointEncoder)
  assert got.options == StackOptions(scan=True, remat="full")
  assert got.size.embed_dim == 16
