import dataclasses
import json

import numpy as np
import pytest

from mmjax.core import errors
from mmjax.data import codes
from mmjax.data.pipeline import build_pipeline
from mmjax.data.transforms.audio import AudioTransform
from mmjax.data.transforms.image import ImageTransform, MaskImage
from mmjax.data.transforms.video import VideoTransform

WHOLE = dict(size=32, crop_scale=(1.0, 1.0))
CONFIG = dict(source="synthetic", image=WHOLE)


@pytest.fixture(scope="module")
def features():
  pipeline = build_pipeline(CONFIG)
  picture = pipeline.example(2, 0, 0, False)["image"]
  return codes.Features(
    modality="image",
    tokenizer="abc",
    num_codes=70_000,
    num_tokens=4,
    length=len(pipeline),
    source="synthetic",
    split="train",
    view=codes.view(pipeline.transforms, "image"),
    first_index=2,
    first_hash=codes.content_hash(picture),
  )


def _rows(start, stop):
  """Codes of example i are 100 i, 100 i + 1, ..."""
  return 100 * np.arange(start, stop)[:, None] + np.arange(4)


@pytest.fixture
def small_shards(monkeypatch):
  monkeypatch.setattr(codes, "SHARD_EXAMPLES", 3)


@pytest.fixture(scope="module")
def written(features, tmp_path_factory):
  path = str(tmp_path_factory.mktemp("codes"))
  codes.write(path, features, _rows)
  return path


def test_codes_come_back_by_index_from_every_shard(
  features, small_shards, tmp_path
):
  seven = dataclasses.replace(features, length=7, split="train[:7]")
  codes.write(str(tmp_path), seven, _rows)
  got = codes.CachedCodes(str(tmp_path), "train[:7]")
  assert len(got) == 7 and got.features == seven
  for i in (6, 0, 3, 2):
    assert got[i].dtype == np.int32
    np.testing.assert_array_equal(got[i], _rows(i, i + 1)[0])


@pytest.mark.parametrize("num_codes, size", [(65_536, 2), (65_537, 4)])
def test_few_codes_take_two_bytes(features, tmp_path, num_codes, size):
  few = dataclasses.replace(features, length=1, num_codes=num_codes)
  highest = np.full((1, 4), num_codes - 1)
  codes.write(str(tmp_path), few, lambda start, stop: highest)
  got = codes.CachedCodes(str(tmp_path), "train")
  assert len(got._records[0]) == 4 * size
  np.testing.assert_array_equal(got[0], highest[0])


def test_a_writer_that_was_killed_goes_on_and_reads_as_unfinished(
  features, small_shards, tmp_path
):
  path, asked = str(tmp_path), []
  seven = dataclasses.replace(features, length=7)

  def killed(start, stop):
    asked.append(start)
    if start == 3:
      raise KeyboardInterrupt
    return _rows(start, stop)

  with pytest.raises(KeyboardInterrupt):
    codes.write(path, seven, killed)
  # What a writer leaves that is killed within a file.
  (tmp_path / "train" / "codes-00001-of-00003.tmp").write_bytes(b"half")
  with pytest.raises(errors.UserError, match="Only a part .*'train'"):
    codes.CachedCodes(path, "train")

  def rest(start, stop):
    asked.append(start)
    return _rows(start, stop)

  codes.write(path, seven, rest)
  assert asked == [0, 3, 3, 6]
  got = codes.CachedCodes(path, "train")
  np.testing.assert_array_equal([got[i] for i in range(7)], _rows(0, 7))
  names = {p.name for p in (tmp_path / "train").iterdir()}
  assert "progress.json" not in names and not any(
    n.endswith(".tmp") for n in names
  )
  codes.write(path, seven, killed)  # All there: asks for nothing.
  assert len(asked) == 4


def test_codes_of_another_tokenizer_are_not_mixed_in(features, written):
  other = dataclasses.replace(features, tokenizer="def")
  with pytest.raises(errors.UserError, match="tokenizer abc .now def"):
    codes.write(written, other, _rows)


def test_examples_get_their_codes_in_training_and_evaluation(written):
  pipeline = build_pipeline({**CONFIG, "codes": dict(path=written)})
  for train in (False, True):
    example = pipeline.example(5, 1, 0, train)
    np.testing.assert_array_equal(example["image_codes"], [500, 501, 502, 503])
  assert str(pipeline.specs["image_codes"]) == "int32[b, 4]"
  facts = pipeline.transforms[-1].facts()
  assert facts == {
    "image_codes_number": 70_000,
    "image_codes_tokenizer": "abc",
  }
  # Its view is that of evaluation.
  views = [pipeline.example(5, e, 0, e > 0)["image"] for e in range(3)]
  np.testing.assert_array_equal(views[0], views[1])
  np.testing.assert_array_equal(views[0], views[2])


@pytest.mark.parametrize(
  "change, message",
  [
    (dict(image=dict(size=32)), "at random.*crop_scale=.1.0, 1.0."),
    (dict(image=WHOLE | dict(flip=True)), "at random.*flip"),
    (dict(image=WHOLE | dict(size=16)), "size: 32 -> 16"),
    (dict(split="test"), r"No codes of split 'test' .*it has \['train'\]"),
    (dict(codes=dict(pth="x")), "'config.data.codes.pth'.*'path'"),
    (
      dict(image=None, text=dict(field="caption", max_tokens=4)),
      "no 'image' of which",
    ),
  ],
)
def test_codes_that_do_not_fit_are_refused(written, change, message):
  config = {**CONFIG, "codes": dict(path=written), **change}
  with pytest.raises(errors.UserError, match=f"(?s){message}"):
    build_pipeline(config)


def test_data_that_changed_since_are_noticed(written, features, tmp_path):
  (tmp_path / "train").mkdir()
  for file in (codes.folder_of(written, "train")).iterdir():
    (tmp_path / "train" / file.name).write_bytes(file.read_bytes())
  said = json.loads((tmp_path / "train" / "features.json").read_text())
  said["first_hash"] = "0"
  (tmp_path / "train" / "features.json").write_text(json.dumps(said))
  with pytest.raises(errors.UserError, match="Example 2 .*have changed since"):
    build_pipeline({**CONFIG, "codes": dict(path=str(tmp_path))})


@pytest.mark.parametrize(
  "transform, fixed",
  [
    (ImageTransform(crop_scale=(1.0, 1.0)), True),
    (ImageTransform(), False),
    (ImageTransform(crop_scale=(1.0, 1.0), blur=1.0), False),
    (ImageTransform(crop_scale=(1.0, 1.0), hue_jitter=0.1), False),
    (VideoTransform(crop_scale=(1.0, 1.0)), True),
    (VideoTransform(crop_scale=(1.0, 1.0), strategy="segments"), False),
    (VideoTransform(), False),
    (AudioTransform(), True),
    (AudioTransform(gain_db=3.0), False),
    (AudioTransform(shift_secs=0.1), False),
  ],
)
def test_what_is_the_same_in_each_epoch(transform, fixed):
  modality = next(iter(transform.specs()))
  assert transform.fixed == fixed
  if fixed:
    mask = MaskImage()  # Says nothing about pixels.
    settings = codes.view([mask, transform], modality)
    assert "blur" not in settings and "field" in settings
  else:
    with pytest.raises(errors.UserError, match=f"config.data.{modality}"):
      codes.view([transform], modality)


def test_elongated_pictures_are_whole_if_training_crops_nothing(rng):
  picture = rng.integers(0, 256, (10, 40, 3)).astype(np.uint8)
  clip = rng.integers(0, 256, (8, 10, 40, 3)).astype(np.uint8)
  for cls, key, value in (
    (ImageTransform, "image", picture),
    (VideoTransform, "video", clip),
  ):
    transform = cls(size=16, crop_scale=(1.0, 1.0))
    views = [
      transform({transform.field: value}, rng, train=train)[key]
      for train in (False, True)
    ]
    np.testing.assert_array_equal(*views)
