import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from mmjax.build import experiment, initial, parts, picture_generation
from mmjax.core import errors, trees

PROMPTS = ("red circle", "blue square", "red circle")


def _painting(config):
  """Only vision tokens, of whole empty pictures, given the text."""
  config.data.image.mask.rate = 1.0
  config.data.text.mask = {}
  config.model.encoders.image.hidden = "replace"
  config.model.shared_dim = 0
  config.tasks.main.objectives = dict(
    vtp=dict(name="vision_token_prediction", decoded=True)
  )


@pytest.fixture(scope="module")
def painting(resolve):
  """An untrained experiment and its variables."""
  config = resolve("pretrain", _painting)
  made = experiment.prepare(config, jax.devices()[:4])
  state, _ = initial.initial_state(config, made)
  return made, state.variables


@pytest.fixture(scope="module")
def generator(painting):
  return picture_generation.PictureGenerator(painting[0], num_steps=4)


def test_pictures_are_those_of_the_prompt_and_the_seed(painting, generator):
  _, variables = painting
  first = generator(variables, PROMPTS, seed=1)
  assert first.shape == (3, 32, 32, 3) and first.dtype == np.uint8
  np.testing.assert_array_equal(first, generator(variables, PROMPTS, seed=1))
  # Alone, or with others after it.
  alone = generator(variables, PROMPTS[:2], seed=1)
  np.testing.assert_array_equal(alone, first[:2])
  assert not np.array_equal(first[0], first[2])  # Other draws, same prompt.
  assert not np.array_equal(first, generator(variables, PROMPTS, seed=2))


def test_a_picture_is_what_the_tokenizer_makes_of_the_codes(
  painting, generator
):
  made, variables = painting
  # A head that is certain of code 3 everywhere.
  flat = trees.flatten(variables["params"])
  (name,) = [n for n in flat if n.endswith("vtp/logits/bias")]
  params = trees.map_names(
    lambda n, x: x.at[3].set(1e4) if n == name else x, variables["params"]
  )
  got = generator({**variables, "params": params}, PROMPTS[:2], seed=0)
  want = made.parts.model.apply(
    variables, jnp.full((2, 16), 3), method="decode_codes"
  )
  np.testing.assert_allclose(got, 255.0 * np.asarray(want), atol=0.51)


def test_a_prompt_that_cannot_be_read_is_refused(painting, generator):
  _, variables = painting
  for prompt, message in (
    (" ", "prompt is empty"),
    (" ".join(20 * "a"), "has 22 tokens, the model reads 12"),
  ):
    with pytest.raises(errors.UserError, match=message):
      generator(variables, [prompt], seed=0)
  with pytest.raises(errors.UserError, match="There is no prompt"):
    generator(variables, [], seed=0)


def _drop(config):
  _painting(config)
  config.data.image.mask.rate = 0.5
  config.model.encoders.image.hidden = "drop"


def _without_text(config):
  _painting(config)
  config.tasks.main.objectives.vtp.given = ()
  config.tasks.main.objectives.mlm = dict(name="masked_lm")
  config.data.text.mask = dict(rate=0.3)


def _without_pixels(config):
  _painting(config)
  config.model.visual_tokenizer = dict(
    name="random_projection", patch_size=8, num_codes=30
  )
  config.tasks.main.objectives.vtp.decoded = False
  config.finetune = {}


@pytest.mark.parametrize(
  "edit, message",
  [
    (_drop, "encoder drops hidden patches.*hidden='replace'"),
    (_without_text, r"given a text. It has \['mlm', 'vtp'\]"),
    (_without_pixels, "no tokenizer that decodes them to pixels"),
  ],
)
def test_a_model_that_cannot_draw_says_why(painting, resolve, edit, message):
  other = parts.make_parts(resolve("pretrain", edit))
  made = dataclasses.replace(painting[0], parts=other)
  with pytest.raises(errors.UserError, match=message):
    picture_generation.PictureGenerator(made)


def test_more_steps_than_codes_are_refused(painting):
  with pytest.raises(errors.UserError, match="steps=17, expected 1 to 16"):
    picture_generation.PictureGenerator(painting[0], num_steps=17)


def test_what_needs_decoded_pixels_says_so_before_it_is_trained(resolve):
  def edit(config):
    _without_pixels(config)
    config.tasks.main.objectives.vtp.decoded = True

  with pytest.raises(errors.UserError, match="does not decode its codes"):
    experiment.prepare(resolve("pretrain", edit), jax.devices()[:1])


def test_an_encoder_that_drops_all_patches_is_refused(resolve):
  def edit(config):
    _painting(config)
    config.model.encoders.image.hidden = "drop"

  with pytest.raises(errors.UserError, match="All 16 tokens are hidden"):
    experiment.prepare(resolve("pretrain", edit), jax.devices()[:1])


def test_a_grid_of_pictures_is_written_row_by_row(rng, tmp_path):
  pictures = rng.integers(0, 256, (3, 4, 6, 3), dtype=np.uint8)
  path = tmp_path / "new" / "grid.png"
  picture_generation.write_grid(pictures, path, columns=2)
  sheet = np.asarray(Image.open(path))
  assert sheet.shape == (2 * 8, 2 * 10, 3)
  for number, (top, left) in enumerate([(2, 2), (2, 12), (10, 2)]):
    np.testing.assert_array_equal(
      sheet[top : top + 4, left : left + 6], pictures[number]
    )
  assert (sheet[8:, 10:] == 255).all()  # No fourth.
  with pytest.raises(errors.UserError, match="Cannot write pictures to"):
    picture_generation.write_grid(pictures, tmp_path / "grid.unknown")
