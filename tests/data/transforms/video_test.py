import io
import sys

import numpy as np
import pytest
from PIL import Image

from mmjax.core import errors
from mmjax.data import pipeline
from mmjax.data.transforms import video

COLORS = ((255, 0, 0), (0, 200, 0), (0, 0, 150), (250, 250, 250))


def _animation(frames, form="WEBP", **options):
  pictures = [Image.fromarray(f) for f in frames]
  file = io.BytesIO()
  pictures[0].save(
    file, form, save_all=True, append_images=pictures[1:], **options
  )
  return file.getvalue()


def _film(frames, form="mp4", codec="mpeg4", rotation=0):
  import av

  file = io.BytesIO()
  with av.open(file, "w", format=form) as container:
    stream = container.add_stream(codec, rate=8)
    stream.height, stream.width = frames[0].shape[:2]
    stream.bit_rate = 4_000_000
    stream.pix_fmt = "yuv420p"
    if rotation:
      stream.set_display_rotation(rotation)
    for frame in frames:
      picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
      container.mux(stream.encode(picture))
    container.mux(stream.encode())
  return file.getvalue()


def _solid(height=32, width=48):
  """A clip of one colour a frame."""
  return np.stack([np.full((height, width, 3), c, np.uint8) for c in COLORS])


def _noise(rng, frames=6, height=12, width=12, low=0, high=256):
  shape = (frames, height, width, 3)
  return rng.integers(low, high, shape).astype(np.uint8)


@pytest.fixture(scope="module")
def mp4():
  return _film(_solid())


def test_frames_of_an_animation_are_decoded_in_order(rng):
  clip = _noise(rng, 5, 7, 9)
  decoded = video.decode(_animation(clip, lossless=True))
  assert decoded.dtype == np.uint8
  np.testing.assert_array_equal(decoded, clip)


def test_a_gif_is_a_clip_and_a_still_picture_one_of_one_frame():
  clip = _solid(6, 5)
  np.testing.assert_array_equal(video.decode(_animation(clip, "GIF")), clip)
  still = io.BytesIO()
  Image.fromarray(clip[0]).save(still, "PNG")
  np.testing.assert_array_equal(video.decode(still.getvalue()), clip[:1])


def test_transparency_is_put_on_white_in_every_frame():
  clip = np.zeros((3, 2, 2, 4), np.uint8)  # Black, of growing alpha.
  clip[..., 3] = np.array([1, 102, 254])[:, None, None]
  decoded = video.decode(_animation(clip, lossless=True, exact=True))
  # Alpha compositing by hand: 255 - alpha.
  np.testing.assert_array_equal(decoded[:, 0, 0, 0], [254, 153, 1])


@pytest.mark.parametrize(
  "form, codec", [("mp4", "mpeg4"), ("webm", "libvpx-vp9")]
)
def test_frames_of_a_film_are_decoded_in_order(form, codec):
  decoded = video.decode(_film(_solid(), form, codec))
  # Rounding to YUV and compression move a colour by a few levels.
  assert decoded.shape == (4, 32, 48, 3)
  assert np.abs(decoded.astype(int) - _solid()).max() < 16


def test_a_film_is_turned_upright():
  clip = np.zeros((2, 32, 64, 3), np.uint8)
  clip[:, :, 48:] = 255  # A white bar at the right ...
  decoded = video.decode(_film(clip, rotation=90))
  assert decoded.shape == (2, 64, 32, 3)
  # ... which turned counterclockwise is at the top.
  assert decoded[:, :12].min() > 200 and decoded[:, 20:].max() < 50


def test_too_many_pixels_over_all_frames_are_refused(mp4):
  clip = _animation(_solid(), lossless=True)
  total = 4 * 32 * 48
  for data in (clip, mp4):
    with pytest.raises(ValueError, match="4 frames of 48x32 pixels, more than"):
      video.decode(data, max_pixels=total - 1)
    assert len(video.decode(data, max_pixels=total)) == 4


def test_a_film_that_does_not_say_its_length_is_stopped_on_the_way():
  data = _film(_solid(), "webm", "libvpx-vp9")
  with pytest.raises(ValueError, match="3 frames of 48x32 pixels, more than"):
    video.decode(data, max_pixels=2 * 32 * 48)


def test_what_is_broken_is_told(rng, mp4):
  whole = _animation(_noise(rng), lossless=True)
  with pytest.raises(ValueError, match="not a clip that Pillow reads"):
    video.decode(whole[: len(whole) // 2])
  for data in (b"", b"hello", mp4[: len(mp4) // 2]):
    with pytest.raises(ValueError, match="not a film that PyAV reads"):
      video.decode(data)


def test_a_film_without_pyav_says_what_to_install(mp4, monkeypatch):
  monkeypatch.setitem(sys.modules, "av", None)
  with pytest.raises(errors.UserError, match=r"pip install 'mmjax\[video\]'"):
    video.decode(mp4)
  with pytest.raises(ValueError, match="not a clip") as e:
    video.decode(b"hello")
  assert not isinstance(e.value, errors.UserError)  # The example is bad.


def _indices(length, rng, train=False, **fields):
  return video.VideoTransform(**fields).indices(length, rng, train=train)


def test_uniform_frames_are_the_middles_of_equal_parts(rng):
  for train in (False, True):
    got = _indices(16, rng, train, num_frames=4)
    # Parts 0..3, 4..7, 8..11, 12..15; their middles at 2, 6, 10, 14.
    assert got.tolist() == [2, 6, 10, 14]
  # Parts of 20 / 6: middles 1.67, 5, 8.33, 11.67, 15, 18.33.
  assert _indices(20, rng, num_frames=6).tolist() == [1, 5, 8, 11, 15, 18]
  assert _indices(5, rng, num_frames=5).tolist() == [0, 1, 2, 3, 4]


def test_segments_give_a_random_frame_of_each_part(rng):
  fields = dict(num_frames=4, strategy="segments")
  assert _indices(16, rng, **fields).tolist() == [2, 6, 10, 14]
  drawn = np.array([_indices(16, rng, True, **fields) for _ in range(200)])
  np.testing.assert_array_equal(drawn // 4, np.tile(np.arange(4), (200, 1)))
  assert all(set(column % 4) == {0, 1, 2, 3} for column in drawn.T)


def test_a_random_segment_has_frames_of_one_stride(rng):
  fields = dict(num_frames=3, strategy="random_segment", stride=2)
  # 5 of 10 frames, with 5 to spare: from 2 on.
  assert _indices(10, rng, **fields).tolist() == [2, 4, 6]
  drawn = np.array([_indices(10, rng, True, **fields) for _ in range(200)])
  np.testing.assert_array_equal(np.diff(drawn, axis=1), 2)
  assert set(drawn[:, 0]) == {0, 1, 2, 3, 4, 5}


@pytest.mark.parametrize(
  "fields, expected",
  [
    (dict(short="loop"), [0, 1, 2, 0, 1]),
    (dict(short="repeat_last"), [0, 1, 2, 2, 2]),
    (dict(short="loop", strategy="random_segment", stride=2), [0, 2, 1, 0, 2]),
    (
      dict(short="repeat_last", strategy="random_segment", stride=2),
      [0, 2, 2, 2, 2],
    ),
  ],
)
def test_a_short_clip_is_filled_up_as_the_config_says(rng, fields, expected):
  for train in (False, True):
    got = _indices(3, rng, train, num_frames=5, **fields)
    assert got.tolist() == expected


@pytest.mark.parametrize("strategy", video.STRATEGIES)
def test_a_short_clip_is_an_error_with_both_lengths(rng, strategy):
  transform = video.VideoTransform(num_frames=5, strategy=strategy)
  with pytest.raises(ValueError, match="has 4 frames, 5 are asked for"):
    transform({"clip": _noise(rng, 4)}, rng, train=True)
  with pytest.raises(ValueError, match="has 8 frames, 9 are asked for"):
    _indices(8, rng, num_frames=5, strategy="random_segment", stride=2)


def test_what_is_drawn_is_done_to_all_frames(rng):
  still = np.repeat(_noise(rng, 1, 20, 30), 4, axis=0)
  transform = video.VideoTransform(
    size=8, num_frames=4, color_jitter=0.3, hue_jitter=0.1, blur=1.0, flip=True
  )
  outs = []
  for _ in range(8):
    out = transform({"clip": still}, rng, train=True)["video"]
    np.testing.assert_array_equal(out, np.repeat(out[:1], 4, axis=0))
    outs.append(out[0])
  assert len({out.tobytes() for out in outs}) == 8
  (spec,) = transform.specs().values()
  assert spec.matches(out[None])


def test_colours_of_all_frames_change_by_one_map(rng):
  clip = np.concatenate(
    [_noise(rng, 1, low=60, high=90), _noise(rng, 1, low=130, high=160)]
  )
  transform = video.VideoTransform(
    size=12,
    num_frames=2,
    crop_scale=(1.0, 1.0),
    crop_ratio=(1.0, 1.0),
    color_jitter=0.3,
    hue_jitter=0.05,
  )
  out = transform({"clip": clip}, rng, train=True)["video"].astype(float)
  affine = np.insert(clip.astype(float), 3, 1.0, axis=-1)  # Pixels and 1.
  both = affine.reshape(-1, 4)
  fit, *_ = np.linalg.lstsq(both, out.reshape(-1, 3), rcond=None)
  assert np.abs(both @ fit - out.reshape(-1, 3)).max() < 1.0  # Rounding.
  assert np.abs(out - clip).max() > 5.0


def test_training_crops_and_evaluation_resizes_the_whole_frame(rng):
  ramp = np.zeros((2, 100, 100, 3), np.uint8)
  ramp[..., 0] = np.arange(100)[None, None, :]
  transform = video.VideoTransform(
    size=10, num_frames=2, crop_scale=(0.25, 0.25), crop_ratio=(1.0, 1.0)
  )
  for train, width in ((False, 100), (True, 50)):
    out = transform({"clip": ramp}, rng, train=train)["video"]
    steps = np.diff(out[0, 5, 1:-1, 0].astype(float)).mean()
    assert steps == pytest.approx(width / 10, rel=0.1)


def test_evaluation_leaves_frames_of_the_right_size_alone(rng):
  clip = _noise(rng, 8)
  transform = video.VideoTransform(
    size=12, num_frames=4, color_jitter=0.5, flip=True
  )
  out = transform({"clip": clip, "x": "y"}, rng, train=False)
  np.testing.assert_array_equal(out["video"], clip[[1, 3, 5, 7]])
  assert out["x"] == "y"


def test_what_is_no_clip_is_told(rng):
  with pytest.raises(errors.UserError, match="Did you mean 'clip'"):
    video.VideoTransform(field="clips").prepare({"clip": b""})
  with pytest.raises(ValueError, match=r"holds uint8\[0, 2, 2, 3\], expected"):
    video.VideoTransform().prepare({"clip": np.zeros((0, 2, 2, 3), np.uint8)})
  with pytest.raises(ValueError, match="holds str, expected encoded bytes"):
    video.VideoTransform().prepare({"clip": "a.mp4"})


@pytest.mark.parametrize(
  "fields, message",
  [
    (dict(num_frames=0), "num_frames=0, expected at least 1"),
    (dict(strategy="random_segment", stride=0), "stride=0, expected"),
    (dict(stride=2), "stride=2 is of strategy='random_segment'"),
    (dict(strategy="segment"), "Did you mean 'segments'"),
    (dict(short="loops"), "Did you mean 'loop'"),
    (dict(blur=-1.0), "blur=-1.0, expected"),  # What pictures check, too.
  ],
)
def test_wrong_settings_are_refused_at_once(fields, message):
  with pytest.raises(errors.UserError, match=message):
    video.VideoTransform(**fields)


@pytest.mark.parametrize("strategy", video.MASKS)
def test_masks_hide_the_same_number_each_time(rng, strategy):
  transform = video.MaskVideo(grid=(3, 4, 5), rate=0.52, strategy=strategy)
  # 0.52 * 60 = 31.2; or 3 times 0.52 * 20 = 10.4. Both rounded.
  count = 31 if strategy == "random" else 30
  masks = []
  for train in (True, False) * 10:
    hidden = transform({}, rng, train=train)["video_hidden"]
    assert transform.specs()["video_hidden"].matches(hidden[None])
    assert hidden.shape == (count,) and (np.diff(hidden) > 0).all()
    assert 0 <= hidden[0] and hidden[-1] < 60
    mask = np.zeros(60, bool)
    mask[hidden] = True
    masks.append(mask.reshape(3, 4, 5))
  masks = np.array(masks)
  assert len({mask.tobytes() for mask in masks}) > 10
  same = (masks == masks[:, :1]).all(axis=(1, 2, 3))
  assert same.all() if strategy != "random" else not same.any()


def test_blockwise_hides_rectangles(rng):
  def neighbours(strategy):
    """How often two places next to each other are hidden alike."""
    transform = video.MaskVideo(grid=(1, 10, 10), rate=0.4, strategy=strategy)
    alike = []
    for _ in range(50):
      mask = np.zeros(100, bool)
      mask[transform({}, rng, train=True)["video_hidden"]] = True
      mask = mask.reshape(10, 10)
      alike.append(np.mean(mask[:, 1:] == mask[:, :-1]))
    return np.mean(alike)

  # By chance 0.4^2 + 0.6^2 = 0.52.
  assert neighbours("tube") == pytest.approx(0.52, abs=0.05)
  assert neighbours("blockwise") > 0.7


def test_masks_of_all_and_nothing_are_refused():
  with pytest.raises(errors.UserError, match="hides 0 of its 36 tokens"):
    video.MaskVideo(grid=(9, 2, 2), rate=0.1)
  with pytest.raises(errors.UserError, match="hides 36 of its 36 tokens"):
    video.MaskVideo(grid=(9, 2, 2), rate=0.9)
  with pytest.raises(errors.UserError, match="Did you mean 'tube'"):
    video.MaskVideo(strategy="tubes")


VIDEO = dict(
  size=16,
  num_frames=4,
  mask=dict(strategy="tube", rate=0.75, patch_size=4, tubelet_frames=2),
)


@pytest.fixture(scope="module")
def clips(starter_path):
  """Opens the starter clips with a section `data.video`."""

  def build(section=VIDEO, **changes):
    config = dict(source="starter_clips", path=starter_path, split="test")
    return pipeline.build_pipeline({**config, "video": section, **changes})

  return build


def test_starter_clips_become_frames_and_a_mask(clips):
  made = clips(text=dict(max_tokens=12))
  specs = {name: str(spec) for name, spec in made.specs.items()}
  assert specs["video"] == "uint8[b, 4, 16, 16, 3]"
  assert specs["video_hidden"] == "int32[b, 24]"  # 0.75 of 2 x 4 x 4.
  example = made.example(2, 0, 0, train=False)
  # Pillow by hand: frames 2, 6, 10, 14 of 16, on white.
  with Image.open(io.BytesIO(made.source[2]["clip"])) as animation:
    assert animation.n_frames == 16
    for frame, index in zip(example["video"], (2, 6, 10, 14), strict=True):
      animation.seek(index)
      rgba = np.asarray(animation.convert("RGBA"), float)
      alpha = rgba[..., 3:] / 255
      pixels = rgba[..., :3] * alpha + 255 * (1 - alpha)
      boxes = pixels.reshape(16, 4, 16, 4, 3).mean(axis=(1, 3))
      assert np.abs(frame - boxes).mean() < 8  # Antialiasing is no box.
  assert example["text"].shape == (12,)


def test_a_clip_is_decoded_once(clips, monkeypatch):
  made = clips()
  first = made.example(1, 0, 0, train=True)["video"]
  monkeypatch.setattr(video, "decode", None)
  again = made.example(1, 0, 0, train=True)["video"]
  np.testing.assert_array_equal(first, again)
  assert (made.example(1, 1, 0, train=True)["video"] != first).any()


@pytest.mark.parametrize(
  "section, message",
  [
    (dict(sise=16), "config.data.video.sise.*Did you mean 'size'"),
    (dict(mask=dict(grid=(1, 1, 1))), "Unknown key 'config.data.video.mask"),
    (dict(mask=dict(patch_size=5)), "mask.patch_size=5 does not divide"),
    (dict(mask=dict(tubelet_frames=3)), "tubelet_frames=3 does not divide"),
    (dict(num_frames=17), "has 16 frames, 17 are asked for"),
  ],
)
def test_sections_that_do_not_fit_are_refused(clips, section, message):
  with pytest.raises(errors.UserError, match=message):
    clips(section)
