import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core import errors
from mmjax.core.sequence import Sequence
from mmjax.objectives.forward_once import ForwardOnce

BATCH = {
  "image": np.zeros((2, 4, 4, 3), np.uint8),
  "image_hidden": np.asarray([[0], [1]], np.int32),
  "text": np.asarray([[5, 6], [7, 0]], np.int32),
  "text_mask": np.asarray([[True, True], [True, False]]),
  "text_masked": np.asarray([[5, 1], [1, 0]], np.int32),
  "text_hidden": np.asarray([[1], [0]], np.int32),
}
SEQUENCE = Sequence(jnp.zeros((2, 3, 4)), jnp.ones((2, 3), bool))


class Model:
  """Counts its calls by key and returns a new object each time."""

  def __init__(self):
    self.counts = collections.Counter()
    self.calls = {}
    self.results = {}

  def __call__(self, method, *args, key, **kwargs):
    self.counts[key] += 1
    self.calls[key] = (method, args, kwargs)
    if method in ("encode", "decode", "restore"):
      result = SEQUENCE.replace()  # A copy.
    elif method == "fuse":
      result = dict(args[0])
    else:
      result = object()
    self.results[key] = result
    return result


@pytest.fixture
def model():
  return Model()


@pytest.fixture
def apply(model):
  return ForwardOnce(model, BATCH, train=True)


@pytest.mark.parametrize("view", ["clean", "masked"])
@pytest.mark.parametrize(
  ("method", "args"),
  [
    ("encode", ("image",)),
    ("pool", ("image",)),
    ("project", ("text",)),
    ("fuse", (("image", "text"),)),
    ("temperature", ()),
    ("patches", ("image",)),
    ("restore", ("image",)),
    ("codes", ("image",)),
    ("reconstruct", ("image",)),
  ],
)
def test_the_same_call_is_computed_once(model, apply, method, args, view):
  first = apply(method, *args, view=view)
  again = apply(method, *args, view=view)
  assert first is again
  assert set(model.counts.values()) == {1}


def test_objectives_share_one_pass_a_view(model, apply):
  apply("fuse", ("image", "text"), view="masked")  # Masked language modelling.
  apply("fuse", ("image", "text"), view="masked")  # Vision tokens.
  apply("codes", "image")
  apply("project", "image")  # Contrastive alignment.
  apply("project", "text")
  apply("pool", "image")  # Classification.
  assert model.counts == {
    "encode/image/masked": 1,
    "encode/text/masked": 1,
    "fuse/image+text/masked": 1,
    "codes/image": 1,
    "encode/image/clean": 1,
    "encode/text/clean": 1,
    "project/image/clean": 1,
    "project/text/clean": 1,
    "pool/image/clean": 1,
  }


def test_the_clean_view_is_the_batch_as_it_is(model, apply):
  apply("encode", "text")
  method, (modality, inputs), kwargs = model.calls["encode/text/clean"]
  assert (method, modality) == ("encode", "text")
  assert inputs is BATCH["text"]
  assert kwargs["mask"] is BATCH["text_mask"]
  assert kwargs["hidden"] is None and kwargs["train"] is True


def test_the_masked_view_takes_the_corrupted_copy(model, apply):
  apply("encode", "text", view="masked")
  _, (_, inputs), kwargs = model.calls["encode/text/masked"]
  assert inputs is BATCH["text_masked"]
  assert kwargs["mask"] is BATCH["text_mask"]
  assert kwargs["hidden"] is BATCH["text_hidden"]


def test_the_masked_view_hides_positions_of_what_has_no_corrupted_copy(
  model, apply
):
  apply("encode", "image", view="masked")
  _, (_, inputs), kwargs = model.calls["encode/image/masked"]
  assert inputs is BATCH["image"]
  assert kwargs["hidden"] is BATCH["image_hidden"]
  assert kwargs["mask"] is None


@pytest.mark.parametrize("view", ["clean", "masked"])
def test_fusion_pooling_and_projection_read_the_encoded_view(
  model, apply, view
):
  apply("fuse", ("text", "image"), view=view)
  apply("pool", "text", view=view)
  apply("project", "text", view=view)
  text, image = (model.results[f"encode/{m}/{view}"] for m in ("text", "image"))
  method, (sequences,), kwargs = model.calls[f"fuse/text+image/{view}"]
  assert (method, kwargs) == ("fuse", {"train": True})
  assert sequences["text"] is text and sequences["image"] is image
  for method in ("pool", "project"):
    called, (modality, sequence), _ = model.calls[f"{method}/text/{view}"]
    assert (called, modality) == (method, "text")
    assert sequence is text


@pytest.mark.parametrize(
  ("mode", "fused"), [("causal", False), ("prefix", False), ("causal", True)]
)
def test_a_decoder_reads_its_field_and_what_was_encoded(model, mode, fused):
  batch = {
    **BATCH,
    "text_prefix": np.asarray([1, 2], np.int32),
    "text_present": np.asarray([True, False]),
  }
  apply = ForwardOnce(model, batch, train=True)
  got = apply("decode", "text", ("image",), mode, fused)
  assert apply("decode", "text", ("image",), mode, fused) is got
  key = f"decode/text/image/{mode}/{fused}/clean"
  method, (name, tokens, context), given = model.calls[key]
  assert (method, name) == ("decode", "text") and tokens is batch["text"]
  image = model.results["encode/image/clean"]
  assert list(context) == ["image"] and context["image"] is image
  assert ("fuse/image/clean" in model.counts) == fused
  expected = {f: batch[f"text_{f}"] for f in ("mask", "present")}
  if mode == "prefix":
    expected["prefix"] = batch["text_prefix"]
  assert given == {**expected, "train": True}


def test_what_a_call_leaves_out_is_what_its_default_says(model, apply):
  short = apply("decode", "text", ("image",))
  assert apply("decode", "text", ("image",), "causal", False) is short
  assert apply("pool", "text", ()) is apply("pool", "text")


def test_what_decides_how_to_decode_has_to_be_there(apply):
  with pytest.raises(errors.UserError, match="'text_parallel'"):
    apply("decode", "text", (), "parallel")
  with pytest.raises(errors.UserError, match="Did you mean 'prefix'"):
    apply("decode", "text", (), "prefixed")


def test_a_modality_may_be_pooled_after_its_fusion(model, apply):
  apply("pool", "text", ("image",))
  assert model.calls["fuse/image+text/clean"][0] == "fuse"
  _, (modality, sequence), _ = model.calls["pool/text/image+text/clean"]
  assert modality == "text"
  assert sequence is model.results["fuse/image+text/clean"]["text"]


@pytest.mark.parametrize("method", ["codes", "reconstruct"])
def test_the_tokenizer_sees_the_whole_picture_in_any_view(model, apply, method):
  apply(method, "image", view="masked")
  _, args, _ = model.calls[f"{method}/image"]
  assert len(args) == 1 and args[0] is BATCH["image"]


def test_calls_with_arrays_are_never_remembered(model, apply):
  x, y = jnp.zeros(2), jnp.ones(2)
  assert apply("head", "mlm", x) is not apply("head", "mlm", y)
  assert model.counts == {"head/mlm": 2}
  method, args, kwargs = model.calls["head/mlm"]
  assert (method, args[0], kwargs) == ("head", "mlm", {})
  assert args[1] is y


def test_methods_that_it_does_not_know_reach_the_model(model, apply):
  assert apply("codebook_size") is model.results["codebook_size"]
  assert model.calls["codebook_size"] == ("codebook_size", (), {})


def test_another_batch_is_another_memory(model):
  ForwardOnce(model, BATCH, train=True)("encode", "image")
  ForwardOnce(model, BATCH, train=False)("encode", "image")
  assert model.counts == {"encode/image/clean": 2}
  assert model.calls["encode/image/clean"][2]["train"] is False


def test_a_shared_pass_is_one_matrix_product_in_the_compiled_gradient():
  batch = {"image": jnp.ones((3, 4))}

  def loss(kernel, share):
    def call(method, modality, inputs, *, key, **kwargs):
      x = jnp.tanh(inputs @ kernel)[:, None]  # b 1 d
      return Sequence(x, jnp.ones(x.shape[:2], bool))

    apply = ForwardOnce(call, batch, train=True)
    other = apply if share else ForwardOnce(call, batch, train=True)
    one = jnp.sum(apply("encode", "image").x ** 2)
    return one + jnp.sum(jnp.sin(other("encode", "image").x))

  def products(share):
    jaxpr = jax.make_jaxpr(lambda k: jax.grad(loss)(k, share))(jnp.ones((4, 5)))
    return str(jaxpr).count("dot_general[")

  # One forward and one backward, for the kernel; twice that without sharing.
  assert (products(True), products(False)) == (2, 4)


def test_an_unknown_view_is_refused_with_the_nearest_name(apply):
  with pytest.raises(errors.UserError, match="Did you mean 'masked'"):
    apply("encode", "image", view="mask")


@pytest.mark.parametrize("method", ["encode", "pool", "project", "codes"])
def test_a_modality_that_the_batch_lacks_is_refused(apply, method):
  with pytest.raises(
    errors.UserError, match="field of the batch 'images'.*mean 'image'"
  ):
    apply(method, "images")


def test_the_second_view_takes_what_belongs_to_it(model):
  second = BATCH["image"] + 1
  batch = {
    **BATCH,
    "image_second": second,
    "image_coordinates": np.zeros((2, 4, 2), np.int32),
    "image_second_coordinates": np.ones((2, 4, 2), np.int32),
    "image_present": np.asarray([True, False]),
  }
  ForwardOnce(model, batch, train=True)("encode", "image", view="second")
  _, args, given = model.calls["encode/image/second"]
  assert args[0] == "image" and args[1] is second
  assert given["hidden"] is None and given["mask"] is None
  assert given["coordinates"] is batch["image_second_coordinates"]
  assert given["present"] is batch["image_present"]


def test_a_second_view_that_the_batch_lacks_is_refused(apply):
  with pytest.raises(errors.UserError, match="'image_second'"):
    apply("encode", "image", view="second")


def test_what_another_computes_is_remembered_apart(model, apply):
  ours = apply("encode", "image")
  theirs = apply("encode", "image", by="ema")

  assert theirs is not ours
  apply("fuse", ("image",), by="ema")  # Reads the same encoding.
  apply("encode", "image", by="teacher")
  assert model.counts["encode/image/clean"] == 3  # One for each of `BY`.
  _, _, kwargs = model.calls["encode/image/clean"]
  assert (kwargs["by"], kwargs["train"]) == ("teacher", False)


def test_no_gradient_reaches_what_another_computes():
  def loss(x):
    def call(method, *args, key, by="model", **kwargs):
      return x**2

    apply = ForwardOnce(call, BATCH, train=True)
    return apply("codes", "image") + apply("codes", "image", by="ema")

  assert jax.grad(loss)(3.0) == 6.0


def test_an_unknown_one_who_computes_is_refused(apply):
  with pytest.raises(errors.UserError, match="Did you mean 'ema'"):
    apply("encode", "image", by="ems")


def test_restoring_reads_the_encoded_view(model, apply):
  apply("restore", "image", view="masked")
  method, (modality, sequence), kwargs = model.calls["restore/image/masked"]
  assert (method, modality, kwargs) == ("restore", "image", {"train": True})
  assert sequence is model.results["encode/image/masked"]


def test_restoring_after_a_fusion_reads_what_was_fused(model, apply):
  apply("restore", "image", ("text",), view="masked")
  _, (_, sequence), _ = model.calls["restore/image/image+text/masked"]
  assert sequence is model.results["fuse/image+text/masked"]["image"]


def test_patches_are_of_the_whole_input_and_of_what_is_real(model):
  audio, mask = np.zeros((2, 8), np.float32), np.ones((2, 8), bool)
  batch = {**BATCH, "audio": audio, "audio_mask": mask}
  apply = ForwardOnce(model, batch, train=True)
  assert apply("patches", "audio", view="masked") is not None
  apply("patches", "image")
  _, (_, inputs), kwargs = model.calls["patches/audio"]
  assert inputs is audio and kwargs["mask"] is mask
  _, (_, inputs), kwargs = model.calls["patches/image"]
  assert inputs is BATCH["image"] and not kwargs


def test_other_fields_are_computed_anew_by_the_same_model(model, apply):
  first = apply("encode", "image")
  other = apply.replaced(image=np.ones((2, 4, 4, 3), np.uint8))
  assert other("encode", "image") is not first
  assert model.counts["encode/image/clean"] == 2
  _, (_, inputs), kwargs = model.calls["encode/image/clean"]
  assert inputs.all() and kwargs["train"]
  # The fields that stay are there, and the first has not changed.
  other("encode", "text")
  assert model.calls["encode/text/clean"][1][1] is BATCH["text"]
  assert apply("encode", "image") is first
  assert not BATCH["image"].any()


@pytest.fixture
def talk():
  """Two rows of three pictures; the second has two, and lacks them all."""
  rng = np.random.default_rng(0)
  return {
    "text": BATCH["text"],
    "text_segments": np.ones((2, 2), np.int32),
    "text_places": np.asarray([[0, 4], [-1, -1]], np.int32),
    "images": rng.integers(0, 256, (2, 3, 4, 4, 3), dtype=np.uint8),
    "images_mask": np.asarray([[True] * 3, [True, True, False]]),
    "images_present": np.asarray([True, False]),
  }


def test_several_pictures_are_encoded_by_the_encoder_of_one(talk):
  def call(method, name, images, *, key, train):
    assert (method, name, key) == ("encode", "image", "encode/images/clean")
    # A special token, then two tokens that say which picture it is.
    means = jnp.asarray(images.reshape(6, -1).mean(1))
    x = jnp.stack([0 * means, means, -means], 1)[:, :, None]  # (b m) 3 1
    return Sequence(x, jnp.ones((6, 3), bool), num_prefix=1, num_content=2)

  apply = ForwardOnce(call, talk, train=True)
  got = apply("encode", "images")
  means = talk["images"].reshape(2, 3, -1).mean(-1)
  expected = np.stack([means, -means], -1).reshape(2, 6)
  np.testing.assert_allclose(got.x[:, :, 0], expected, rtol=1e-6)
  np.testing.assert_array_equal(got.mask, [[True] * 6, [False] * 6])
  assert got.num_content == 6
  del talk["images_present"]
  got = ForwardOnce(call, talk, train=True)("encode", "images")
  np.testing.assert_array_equal(got.mask[1], [True] * 4 + [False] * 2)


def test_a_conversation_is_decoded_as_the_batch_says(model, talk):
  apply = ForwardOnce(model, talk, train=False)
  apply("decode", "text", (), "conversation")
  given = model.calls["decode/text//conversation/False/clean"][2]
  names = ("segments", "places")  # Positions are left out here.
  assert given == {**{n: talk[f"text_{n}"] for n in names}, "train": False}
  apply("decode", "text")  # Other objectives on the same batch know nothing.
  assert model.calls["decode/text//causal/False/clean"][2] == {"train": False}
