import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core import errors
from mmjax.core.interfaces import ModelInfo, Objective
from mmjax.core.sequence import Sequence
from mmjax.objectives.forward_once import ForwardOnce
from mmjax.objectives.vision_token_prediction import VisionTokenPrediction

CODES, D = 6, 4
INFO = ModelInfo(embed_dim=D, codebook_size=CODES)
KEY = jax.random.key(0)
VTP = VisionTokenPrediction


@pytest.fixture
def case(rng):
  """A batch, the encoded picture behind CLS, codes, and the head."""
  batch = {
    "image_hidden": jnp.asarray([[1, 3], [2, 0], [0, 1]], jnp.int32),
    "example_mask": jnp.asarray([True, True, False]),
  }
  x = rng.normal(size=(3, 1 + 4, D)).astype(np.float32)
  sequence = Sequence(
    jnp.asarray(x), jnp.ones((3, 5), bool), num_prefix=1, num_content=4
  )
  codes = jnp.asarray(rng.integers(0, CODES, (3, 4)), jnp.int32)
  return batch, sequence, codes, rng.normal(size=(D, CODES)).astype(np.float32)


def _results(sequence, codes, kernel):
  return {
    ("fuse", ("image", "text"), "masked"): {"image": sequence},
    ("encode", "image", "masked"): sequence,
    ("codes", "image", "clean"): codes,
    ("head", "vtp", "clean"): lambda x: x @ kernel,
  }


@pytest.mark.parametrize("given", [("text",), ()])
def test_the_loss_is_that_of_the_hidden_patches(case, table, by_hand, given):
  batch, sequence, codes, kernel = case
  apply = table(_results(sequence, codes, kernel))
  loss, metrics = VTP(given=given)(apply, batch, rng=KEY, train=True)
  total, right = 0.0, 0
  for i in range(2):  # The third example is filler.
    for j in np.asarray(batch["image_hidden"][i]):
      logits = np.asarray(sequence.x[i, 1 + j], np.float64) @ kernel
      total += by_hand.cross_entropy(logits, codes[i, j])
      right += int(np.argmax(logits) == codes[i, j])
  np.testing.assert_allclose(loss.total, total, rtol=1e-5)
  assert loss.weight == 4
  assert (metrics["accuracy"].total, metrics["accuracy"].weight) == (right, 4)


def test_targets_are_codes_of_the_whole_picture(case, table):
  batch, *rest = case
  apply = table(_results(*rest))
  VTP()(apply, batch, rng=KEY, train=True)
  assert apply.calls == [
    ("fuse", ("image", "text"), "masked"),
    ("head", "vtp", "clean"),
    ("codes", "image", "clean"),
  ]


def test_chance_is_the_loss_of_uniform_logits(case, table):
  batch, sequence, codes, kernel = case
  apply = table(_results(sequence, codes, np.zeros_like(kernel)))
  loss, _ = VTP()(apply, batch, rng=KEY, train=True)
  np.testing.assert_allclose(VTP().chance(INFO, 3), loss.mean, rtol=1e-6)


def test_it_declares_its_fields_its_head_and_what_is_frozen():
  assert isinstance(VTP(), Objective)
  fields = VTP().fields(INFO)
  assert {name: spec.dtype for name, spec in fields.items()} == {
    "image": "uint8",
    "text": "int32",
    "image_hidden": "int32",
  }
  assert VTP(head="patches").heads(INFO) == {
    "patches": {"name": "token", "num_classes": CODES}
  }
  exact = VTP(head_activation="gelu", head_norm_epsilon=1e-12).heads(INFO)
  assert exact["vtp"] == {
    "name": "token",
    "num_classes": CODES,
    "activation": "gelu",
    "norm_epsilon": 1e-12,
  }
  assert VTP.needs_frozen == ("visual_tokenizer",)


def test_codes_of_another_grid_are_refused_with_both_numbers(case, table):
  batch, sequence, _, kernel = case
  apply = table(_results(sequence, jnp.zeros((3, 9), jnp.int32), kernel))
  with pytest.raises(errors.UserError, match="tokenizer has 9 .* encoder 4"):
    VTP()(apply, batch, rng=KEY, train=True)


def test_each_modality_has_a_tokenizer_of_its_own():
  info = ModelInfo(embed_dim=D, codebook_sizes={"audio": 3})
  audio = VTP(image="audio", given=())
  assert audio.heads(info)["vtp"]["num_classes"] == 3
  np.testing.assert_allclose(audio.chance(info, 2), np.log(3))
  with pytest.raises(errors.UserError, match="makes codes of 'image'"):
    VTP().heads(info)


class Pixels:
  """A model of 2x2 pictures, one code a pixel, whose decoder mixes codes."""

  def __init__(self, codes, rng):
    self.codes = codes
    self.kernel = rng.normal(size=(3, CODES)).astype(np.float32)
    self.seen = []  # Pictures that the encoder got.

  def __call__(self, method, *args, key, **kwargs):
    if method == "codes":
      return self.codes
    if method == "decode_codes":
      codes = jnp.asarray(args[0], jnp.float32)
      gray = (10 * codes + codes.sum(axis=1, keepdims=True)) / 255.0
      gray = gray.reshape(-1, 2, 2, 1)
      return jnp.broadcast_to(gray, (*gray.shape[:3], 3))
    if method == "encode":
      image = args[1]
      self.seen.append((np.asarray(image), np.asarray(kwargs["hidden"])))
      x = image.reshape(-1, 4, 3).astype(jnp.float32) / 50.0
      # Each token also knows the sum of all: hidden ones could leak.
      x = x + x.sum(axis=1, keepdims=True)
      return Sequence(x, jnp.ones(x.shape[:2], bool), num_content=4)
    assert method == "head"
    return args[1] @ self.kernel


@pytest.fixture
def painted(rng):
  codes = jnp.asarray(rng.integers(1, CODES, (2, 4)), jnp.int32)
  batch = {
    "image": jnp.full((2, 2, 2, 3), 200, jnp.uint8),
    "image_hidden": jnp.asarray([[1, 3], [0, 2]], jnp.int32),
    "example_mask": jnp.ones(2, bool),
  }
  model = Pixels(codes, rng)
  return model, ForwardOnce(model, batch, train=True), batch


def test_decoded_pixels_show_visible_codes_and_nothing_of_hidden_ones(painted):
  model, apply, batch = painted
  VTP(given=(), decoded=True)(apply, batch, rng=KEY, train=True)
  ((image, hidden),) = model.seen
  codes = np.array(model.codes)
  codes[0, [1, 3]] = codes[1, [0, 2]] = 0
  gray = 10 * codes + codes.sum(axis=1, keepdims=True)
  np.testing.assert_array_equal(image[..., 0].reshape(2, 4), gray)
  np.testing.assert_array_equal(hidden, batch["image_hidden"])


def test_what_is_trained_is_what_generation_asks_for(painted, by_hand):
  model, apply, batch = painted
  vtp = VTP(given=(), decoded=True)
  loss, _ = vtp(apply, batch, rng=KEY, train=True)
  # As in generation, positions repeat themselves.
  hidden = jnp.asarray([[1, 3, 1, 1], [0, 0, 2, 0]], jnp.int32)
  empty = ForwardOnce(model, {}, train=False)
  logits = vtp.code_logits(empty, model.codes, hidden)
  total = sum(
    by_hand.cross_entropy(logits[i, j], model.codes[i, j])
    for i, j in ((0, 1), (0, 3), (1, 0), (1, 2))
  )
  np.testing.assert_allclose(loss.total, total, rtol=1e-5)
  np.testing.assert_array_equal(model.seen[0][0], model.seen[1][0])


def test_codes_that_do_not_become_pictures_are_refused(painted):
  _, apply, batch = painted
  batch = {"video": batch["image"], "video_hidden": batch["image_hidden"]}
  apply = apply.replaced(**batch)
  with pytest.raises(errors.UserError, match="codes of 'video' .* pictures"):
    VTP(image="video", given=(), decoded=True)(
      apply, batch, rng=KEY, train=True
    )
