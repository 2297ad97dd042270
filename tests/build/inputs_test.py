import io

import numpy as np
import pytest
import soundfile

from mmjax.build import inputs
from mmjax.core import errors
from mmjax.data import pipeline, sources
from mmjax.data.examples import Pipeline
from mmjax.data.transforms import audio, patches, video
from mmjax.data.transforms.image import ImageTransform


@pytest.fixture(scope="module")
def source():
  return sources.open_source("synthetic", split="test")


@pytest.fixture
def written(tmp_path):
  """`written(content)`: the path of a file."""

  def write(content):
    path = tmp_path / "file"
    path.write_bytes(content)
    return str(path)

  return write


def _pipeline(**changes):
  config = dict(
    source="synthetic",
    split="test",
    image=dict(size=16, mask=dict(patch_size=8)),
    text=dict(max_tokens=8, mask=dict(rate=0.3)),
  )
  return pipeline.build_pipeline(config | changes)


def test_a_batch_is_what_evaluation_sees(source, written):
  made = _pipeline()
  path = written(source[3]["image"])

  batch = inputs.make_batch(
    made, ("image", "text"), inputs.Inputs(image=path, prompt="red square")
  )

  expected = made.example(3, 0, 0, train=False)
  np.testing.assert_array_equal(batch["image"][0], expected["image"])
  np.testing.assert_array_equal(
    batch["text"][0], made.tokenizer.encode("red square", 8)
  )
  np.testing.assert_array_equal(batch["text_mask"], batch["text"] != 0)
  # Nothing is hidden.
  assert set(batch) == {"image", "text", "text_mask"}


def test_a_modality_that_may_be_lacking_need_not_be_given(source, written):
  made = _pipeline(optional=("image",))
  path = written(source[0]["image"])

  without = inputs.make_batch(made, ("image",), inputs.Inputs())
  given = inputs.make_batch(made, ("image",), inputs.Inputs(image=path))

  assert without["image_present"].tolist() == [False]
  assert not without["image"].any()
  assert given["image_present"].tolist() == [True]
  assert given["image"].any()


def test_recordings_and_clips_are_read_from_files(source, written):
  transforms = [
    audio.AudioTransform(sample_rate=8000, max_secs=0.5),
    video.VideoTransform(size=16, num_frames=2, short="loop"),
  ]
  made = Pipeline(source, transforms)
  file = io.BytesIO()
  tone = 0.5 * np.sin(np.arange(800) / 5)
  soundfile.write(file, tone, 8000, format="WAV", subtype="FLOAT")
  sound = inputs.Inputs(audio=written(file.getvalue()))

  batch = inputs.make_batch(made, ("audio",), sound)

  np.testing.assert_allclose(batch["audio"][0, :800], tone, atol=1e-6)
  assert batch["audio_mask"].sum() == 800
  clip = inputs.Inputs(video=written(source[0]["image"]))
  assert inputs.make_batch(made, ("video",), clip)["video"].shape == (
    1,
    2,
    16,
    16,
    3,
  )


def test_pictures_of_any_shape_come_with_their_coordinates(source, written):
  transform = patches.PatchTransform(
    image=ImageTransform(size=16), patch_size=16, max_patches=20
  )
  given = inputs.Inputs(image=written(source[0]["image"]))

  batch = inputs.make_batch(Pipeline(source, [transform]), ("image",), given)

  assert set(batch) == {"image", "image_mask", "image_coordinates"}
  assert batch["image_mask"].sum() == 16  # 64 pixels, patches of 16.


@pytest.mark.parametrize(
  ("given", "message"),
  [
    ({}, "--image is missing: the model looks at"),
    (dict(image="x"), "--image=x: No such file"),
    (dict(image=__file__, prompt="a"), "not a picture"),
    (dict(image="x", audio="y"), "--audio=y: the model does not look at"),
  ],
)
def test_what_is_wrong_with_a_file_is_said_by_its_flag(given, message):
  with pytest.raises(errors.UserError, match=message):
    inputs.make_batch(_pipeline(), ("image",), inputs.Inputs(**given))


@pytest.mark.parametrize(
  ("prompt", "message"),
  [
    ("", "must not be empty"),
    (" ", "must not be empty"),
    ("a " * 9, "reads 8"),
  ],
)
def test_a_text_that_is_read_is_neither_empty_nor_too_long(prompt, message):
  with pytest.raises(errors.UserError, match=message):
    inputs.make_batch(_pipeline(), ("text",), inputs.Inputs(prompt=prompt))
