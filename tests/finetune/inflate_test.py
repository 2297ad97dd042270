import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core import errors, trees
from mmjax.finetune import inflate, surgery
from mmjax.models.encoders.video import TubeletStem
from mmjax.models.encoders.vit import PatchStem

P, DIM, PLACES = 2, 6, 6  # Pixels of a patch, channels, patches of a picture.


@pytest.fixture(scope="module")
def picture():
  rng = np.random.default_rng(1)
  return rng.integers(0, 256, (1, 2 * P, 3 * P, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def stem():
  """Parameters of a picture's stem."""
  rng = np.random.default_rng(2)
  flat = {
    "patches/kernel": rng.normal(size=(3 * P * P, DIM)),
    "patches/bias": rng.normal(size=DIM),
    "positions/table": rng.normal(size=(PLACES, DIM)),
    "mask_token": rng.normal(size=DIM),
  }
  return {
    f"image/stem/{name}": np.asarray(x, np.float32) for name, x in flat.items()
  }


RENAME = (("image/(.*)", r"video/\1"),)


def _target(frames, times):
  """A model that takes clips of `times` tubelets of `frames`."""
  shapes = {
    "patches/kernel": (frames * 3 * P * P, DIM),
    "patches/bias": (DIM,),
    "positions/table": (times * PLACES, DIM),
    "mask_token": (DIM,),
  }
  return trees.unflatten(
    {f"video/stem/{n}": np.zeros(s, np.float32) for n, s in shapes.items()}
  )


def _load(stem, frames, times, kind):
  return surgery.load_partial(
    _target(frames, times), trees.unflatten(stem), rename=RENAME, inflate=kind
  )


@pytest.mark.parametrize("kind", inflate.KINDS)
@pytest.mark.parametrize("frames, times", [(2, 3), (3, 1), (1, 2)])
def test_a_clip_of_one_picture_gives_the_tokens_of_the_picture(
  picture, stem, kind, frames, times
):
  of_picture = jax.tree.map(jnp.asarray, trees.unflatten(stem))["image"]["stem"]
  expected = (
    PatchStem(P, DIM).apply({"params": of_picture}, jnp.asarray(picture)).x
  )
  merged, _ = _load(stem, frames, times, kind)
  merged = jax.tree.map(jnp.asarray, merged)
  still = jnp.asarray(np.repeat(picture[:, None], frames * times, axis=1))
  got = TubeletStem(frames, P, DIM).apply(
    {"params": merged["video"]["stem"]}, still
  )
  assert got.x.shape == (1, times * PLACES, DIM)
  for t in range(times):
    np.testing.assert_allclose(
      got.x[:, t * PLACES : (t + 1) * PLACES], expected, rtol=1e-4, atol=1e-5
    )


def test_kernels_by_hand():
  kernel = np.array([[2.0, 4.0], [6.0, 8.0]], np.float32)
  average = inflate.inflate("stem/patches/kernel", kernel, 2, "average")
  assert average.tolist() == [[1, 2], [3, 4], [1, 2], [3, 4]]
  for count, middle in ((2, 1), (3, 1), (4, 2)):
    central = inflate.inflate(
      "s/patches/kernel", kernel, count, "central_frame"
    )
    central = central.reshape(count, 2, 2)
    np.testing.assert_array_equal(central[middle], kernel)
    assert not np.delete(central, middle, axis=0).any()
    assert central.dtype == np.float32


def test_the_report_says_what_was_inflated(stem):
  _, report = _load(stem, 2, 3, "average")
  assert str(report).splitlines() == [
    "loaded 4 of 4 parameters",
    "  video: 4 loaded from image",
    "  video/stem/patches/kernel: inflated 2-fold over time (average)",
    "  video/stem/positions/table: inflated 3-fold over time (average)",
  ]


def test_other_shapes_and_other_names_stay_errors(stem):
  with pytest.raises(errors.UserError) as e:  # Not asked for.
    _load(stem, 2, 3, "")
  assert "video/stem/patches/kernel: float32[24, 6] in the model" in str(
    e.value
  )
  source = {
    "a/patches/kernel": np.ones((2, 4), np.float32),
    "a/patches/bias": np.ones(4, np.float32),
    "a/positions/table": np.ones((4, 4), np.float32),
  }
  target = {
    "a/patches/kernel": np.ones((4, 4), np.float32),
    "a/patches/bias": np.ones(8, np.float32),  # No kernel.
    "a/positions/table": np.ones((6, 4), np.float32),  # No multiple.
  }
  with pytest.raises(errors.UserError) as e:
    surgery.load_partial(
      trees.unflatten(target), trees.unflatten(source), inflate="average"
    )
  assert [line.split(":")[0].strip() for line in str(e.value).splitlines()] == [
    "The checkpoint does not fit the model. Say what is meant with "
    "init.rename, init.new and init.dropped",
    "other shape or kind of number",
    "a/patches/bias",
    "a/positions/table",
  ]


def test_a_wrong_kind_and_nothing_to_inflate_are_refused(stem):
  with pytest.raises(errors.UserError, match="Did you mean 'average'"):
    _load(stem, 2, 3, "averaged")
  with pytest.raises(errors.UserError, match="no kernel of patches and no"):
    _load(stem, 1, 1, "average")
