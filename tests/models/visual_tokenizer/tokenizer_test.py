import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core import errors, precision, trees
from mmjax.models.visual_tokenizer import VISUAL_TOKENIZERS
from mmjax.models.visual_tokenizer.tokenizer import join_tubelets, vq

ENCODER = dict(embed_dim=16, num_layers=1, num_heads=2, mlp_dim=24)
DECODER = dict(embed_dim=12, num_layers=1, num_heads=3, mlp_dim=20)
PIXELS, PATCH, CODES, DIM = 6, 2, 10, 4
NUM = (PIXELS // PATCH) ** 2
KEY = jax.random.key(0)
TOKENIZER = vq(
  image_size=PIXELS,
  patch_size=PATCH,
  num_codes=CODES,
  code_dim=DIM,
  encoder_size=ENCODER,
  decoder_size=DECODER,
)


@pytest.fixture(scope="module")
def image():
  rng = np.random.default_rng(11)
  return jnp.asarray(rng.integers(0, 256, (2, PIXELS, PIXELS, 3)), jnp.uint8)


@pytest.fixture(scope="module")
def variables(image, randomized):
  rng = np.random.default_rng(12)
  shapes = jax.eval_shape(lambda: TOKENIZER.init(KEY, image, train=False))
  state = shapes["codebook"]["codebook"]["state"]
  embedding = rng.normal(size=(CODES, DIM))
  embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
  state = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), state)
  state = state.replace(embedding=jnp.asarray(embedding, jnp.float32))
  return {
    "params": randomized(TOKENIZER, image, train=False),
    "codebook": {"codebook": {"state": state}},
  }


@pytest.fixture(scope="module")
def reconstruction(variables, image):
  return jax.jit(lambda image: TOKENIZER.apply(variables, image, train=False))(
    image
  )


@pytest.fixture(scope="module")
def decode(variables):
  return jax.jit(
    lambda codes: TOKENIZER.apply(variables, codes, method="decode_codes")
  )


def _cut(image):
  """Patches by slicing, row by row."""
  return np.stack(
    [
      np.asarray(image)[
        :, r * PATCH : (r + 1) * PATCH, c * PATCH : (c + 1) * PATCH
      ].reshape(len(image), -1)
      for r in range(PIXELS // PATCH)
      for c in range(PIXELS // PATCH)
    ],
    axis=1,
  )


def _vectors(params, image, by_hand):
  """What is quantised, of unit length."""
  x = by_hand.linear(params["patches"], _cut(image) / 127.5 - 1.0)
  x = x + np.asarray(params["encoder_positions"]["table"])
  out = []
  for row in x:
    row = by_hand.stack(params["encoder"], row, np.ones(NUM, bool))
    row = by_hand.linear(params["to_code"], row)
    out.append(row / np.linalg.norm(row, axis=1, keepdims=True))
  return np.stack(out)


def _patches(params, codes, embedding, by_hand):
  """The patches of codes, 0..1, row by row."""
  out = []
  for row in np.asarray(embedding, np.float64)[codes]:
    x = by_hand.linear(params["from_code"], row)
    x = x + np.asarray(params["decoder_positions"]["table"])
    x = by_hand.stack(params["decoder"], x, np.ones(NUM, bool))
    out.append(by_hand.linear(params["pixels"], x) * 0.5 + 0.5)
  return np.stack(out)


def test_codes_are_nearest_to_the_encoded_patches(
  variables, image, reconstruction, by_hand
):
  vectors = _vectors(variables["params"], image, by_hand)
  embedding = np.asarray(variables["codebook"]["codebook"]["state"].embedding)
  distances = ((vectors[:, :, None] - embedding) ** 2).sum(-1)
  assert len(np.unique(distances.argmin(-1))) > 2
  np.testing.assert_array_equal(reconstruction.codes, distances.argmin(-1))
  np.testing.assert_allclose(
    reconstruction.commitment, distances.min(-1), rtol=1e-4, atol=1e-5
  )


def test_pictures_are_decoded_from_codes_row_by_row(
  variables, reconstruction, by_hand
):
  embedding = variables["codebook"]["codebook"]["state"].embedding
  expected = _patches(
    variables["params"], np.asarray(reconstruction.codes), embedding, by_hand
  )
  np.testing.assert_allclose(
    _cut(reconstruction.image), expected, rtol=1e-4, atol=1e-5
  )


def test_decoding_the_codes_is_the_reconstruction_clipped(
  variables, image, reconstruction, decode
):
  codes = jax.jit(
    lambda image: TOKENIZER.apply(variables, image, method="codes")
  )(image)
  np.testing.assert_array_equal(codes, reconstruction.codes)
  out = np.asarray(reconstruction.image)
  assert out.min() < 0 and out.max() > 1  # So that clipping shows.
  np.testing.assert_allclose(
    decode(codes), np.clip(out, 0, 1), rtol=1e-4, atol=1e-5
  )


def test_codes_of_a_clip_are_those_of_its_middle_frames(variables):
  rng = np.random.default_rng(13)
  clip = jnp.asarray(rng.integers(0, 256, (2, 6, PIXELS, PIXELS, 3)), jnp.uint8)
  tokenizer = TOKENIZER.clone(tubelet_frames=3)
  codes = jax.jit(lambda x: tokenizer.apply(variables, x, method="codes"))
  got = codes(clip)
  assert got.shape == (2, 2 * NUM)
  for place, frame in enumerate((1, 4)):
    np.testing.assert_array_equal(
      got[:, place * NUM : (place + 1) * NUM], codes(clip[:, frame])
    )


def test_clips_that_do_not_split_into_tubelets_are_refused(variables):
  clip = jnp.zeros((1, 5, PIXELS, PIXELS, 3), jnp.uint8)
  with pytest.raises(errors.UserError, match="5 frames .*tubelet_frames=3"):
    TOKENIZER.clone(tubelet_frames=3).apply(variables, clip, method="codes")


def test_a_batch_of_one_gives_the_row_of_a_larger_batch(reconstruction, decode):
  codes = reconstruction.codes
  np.testing.assert_allclose(
    decode(codes)[1:], decode(codes[1:]), rtol=1e-4, atol=1e-5
  )


def test_the_gradient_reaches_the_encoder_through_the_codes(variables, image):
  params = variables["params"]

  def loss(patches):
    out = TOKENIZER.apply(
      {**variables, "params": {**params, "patches": patches}},
      image,
      train=False,
    )
    return jnp.mean(out.image**2)

  grads = jax.jit(jax.grad(loss))(params["patches"])
  assert all(np.all(np.asarray(g) != 0) for g in jax.tree.leaves(grads))


def test_number_of_parameters(variables):
  def stack(d, mlp):  # Attention, feed-forward, three norms.
    return 4 * (d * d + d) + (d * mlp + mlp) + (mlp * d + d) + 3 * 2 * d

  encoder = (12 * 16 + 16) + NUM * 16 + stack(16, 24) + (16 * DIM + DIM)
  decoder = (DIM * 12 + 12) + NUM * 12 + stack(12, 20) + (12 * 12 + 12)
  assert trees.num_params(variables["params"]) == encoder + decoder


def test_training_updates_the_codebook(variables, image):
  def run():
    return TOKENIZER.apply(
      variables,
      image,
      train=True,
      rngs={"codebook": KEY},
      mutable=["codebook"],
    )

  out, changed = jax.jit(run)()
  state = changed["codebook"]["codebook"]["state"]
  uses = np.bincount(np.asarray(out.codes).ravel(), minlength=CODES)
  np.testing.assert_allclose(state.counts, 0.02 * uses, rtol=1e-5)


def test_bfloat16_gives_float32_pictures_over_float32_parameters(image):
  low = TOKENIZER.clone(precision=precision.POLICIES["bfloat16"])

  def run():
    out, variables = low.init_with_output(KEY, image, train=False)
    return out.image, variables["params"]

  picture, params = jax.eval_shape(run)
  assert picture.dtype == jnp.float32
  assert all(p.dtype == jnp.float32 for p in jax.tree.leaves(params))


def test_pictures_of_another_size_are_refused(variables):
  with pytest.raises(errors.UserError, match="takes 6x6 pixels, got 4x8"):
    TOKENIZER.apply(variables, jnp.zeros((1, 4, 8, 3), jnp.uint8), train=False)


def test_patches_that_do_not_tile_are_refused():
  with pytest.raises(errors.UserError, match="image_size=9.*patch_size=2"):
    vq(image_size=9, patch_size=2)


def test_a_size_of_a_wrong_name_is_refused():
  with pytest.raises(errors.UserError, match="Unknown size 'XXL'"):
    vq(image_size=8, patch_size=2, decoder_size="XXL")


def test_the_registry_makes_it_with_its_options():
  made = VISUAL_TOKENIZERS["vq"](
    image_size=8,
    patch_size=2,
    num_codes=7,
    code_dim=5,
    decay=0.5,
    restart_after=3,
    unit_codes=False,
    encoder_size="Ti",
    decoder_size="S",
  )
  book = made.codebook
  assert (book.num_codes, book.code_dim, book.decay) == (7, 5, 0.5)
  assert (book.restart_after, book.normalize) == (3, False)
  assert (made.encoder_size.embed_dim, made.decoder_size.embed_dim) == (
    192,
    384,
  )
  assert made.grid == (4, 4)


CLIPS = vq(
  image_size=4,
  patch_size=2,
  num_codes=CODES,
  code_dim=DIM,
  encoder_size=ENCODER,
  decoder_size=DECODER,
  tubelet_frames=3,
  clips="tubelets",
  num_frames=6,
)


def test_clips_are_encoded_whole_and_decoded_tubelet_by_tubelet(
  variables, randomized, by_hand
):
  rng = np.random.default_rng(14)
  clip = jnp.asarray(rng.integers(0, 256, (1, 6, 4, 4, 3)), jnp.uint8)
  params = randomized(CLIPS, clip, train=False)
  codebook = variables["codebook"]  # Of as many codes.
  variables = {"params": params, "codebook": codebook}
  embedding = np.asarray(codebook["codebook"]["state"].embedding)
  out = jax.jit(lambda x: CLIPS.apply(variables, x, train=False))(clip)

  places = [(t, r, c) for t in (0, 3) for r in (0, 2) for c in (0, 2)]

  def cut(x):
    return np.stack(
      [
        np.asarray(x)[0, t : t + 3, r : r + 2, c : c + 2].reshape(-1)
        for t, r, c in places
      ]
    )

  x = by_hand.linear(params["patches"], cut(clip) / 127.5 - 1.0)
  x = x + np.asarray(params["encoder_positions"]["table"])
  x = by_hand.stack(params["encoder"], x, np.ones(8, bool))
  x = by_hand.linear(params["to_code"], x)
  x = x / np.linalg.norm(x, axis=1, keepdims=True)
  codes = (x @ embedding.T).argmax(-1)
  assert len(np.unique(codes)) > 2
  np.testing.assert_array_equal(out.codes[0], codes)

  x = by_hand.linear(params["from_code"], embedding[codes])
  x = x + np.asarray(params["decoder_positions"]["table"])
  x = by_hand.stack(params["decoder"], x, np.ones(8, bool))
  x = by_hand.linear(params["pixels"], x) * 0.5 + 0.5
  np.testing.assert_allclose(cut(out.image), x, rtol=1e-4, atol=1e-5)
  assert out.image.shape == clip.shape and CLIPS.modality == "video"


def test_tubelets_join_to_what_they_were_cut_from(rng):
  clip = rng.normal(size=(2, 4, 6, 4, 3)).astype(np.float32)
  cut = [
    clip[:, t : t + 2, r : r + 2, c : c + 2].reshape(2, -1)
    for t in (0, 2)
    for r in (0, 2, 4)
    for c in (0, 2)
  ]
  joined = join_tubelets(jnp.asarray(np.stack(cut, 1)), (2, 3, 2), 2, 2)
  np.testing.assert_array_equal(joined, clip)


def test_what_a_clips_tokenizer_cannot_take_is_refused():
  with pytest.raises(errors.UserError, match="6 frames of 4x4.*got 4x4"):
    jax.eval_shape(
      lambda: CLIPS.init(KEY, jnp.zeros((1, 4, 4, 3), jnp.uint8), train=False)
    )
  with pytest.raises(errors.UserError, match="tubelet_frames=4.*num_frames=6"):
    vq(
      image_size=4,
      patch_size=2,
      tubelet_frames=4,
      clips="tubelets",
      num_frames=6,
    )
  with pytest.raises(errors.UserError, match="clips 'tubelet'.*'tubelets'"):
    vq(image_size=4, patch_size=2, clips="tubelet")


def test_vq_kd_decodes_codes_to_features(variables, image, randomized, by_hand):
  made = VISUAL_TOKENIZERS["vq_kd"](
    image_size=PIXELS,
    patch_size=PATCH,
    feature_dim=5,
    num_codes=CODES,
    code_dim=DIM,
    encoder_size=ENCODER,
    decoder_size=DECODER,
  )

  params = randomized(made, image, train=False)
  variables = {**variables, "params": params}
  out = jax.jit(lambda image: made.apply(variables, image, train=False))(image)
  embedding = np.asarray(variables["codebook"]["codebook"]["state"].embedding)
  assert out.image is None and out.features.shape == (2, NUM, 5)
  for row in range(2):
    x = by_hand.linear(params["from_code"], embedding[out.codes[row]])
    x = x + np.asarray(params["decoder_positions"]["table"])
    x = by_hand.stack(params["decoder"], x, np.ones(NUM, bool))
    x = by_hand.linear(params["features"], x)
    np.testing.assert_allclose(out.features[row], x, rtol=1e-4, atol=1e-5)
