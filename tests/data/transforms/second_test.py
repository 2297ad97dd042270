import numpy as np

from mmjax.data import pipeline, sources
from mmjax.data.transforms.second import SecondView


class Four:
  """One picture whose quarters have a colour each."""

  def __init__(self, *, split, path):
    quarters = np.array([[40, 80], [120, 160]], np.uint8).repeat(8, 0)
    self.picture = np.stack([quarters.repeat(8, 1)] * 3, axis=-1)

  def __len__(self):
    return 30

  def __getitem__(self, index, /):
    return {"image": self.picture}


def test_another_crop_of_the_same_is_one_of_the_whole(monkeypatch):
  monkeypatch.setitem(sources.SOURCES, "four", Four)
  small = dict(size=4, crop_scale=(0.05, 0.05), crop_ratio=(1.0, 1.0))
  made = pipeline.build_pipeline(
    dict(source="four", image=dict(small, second="itself"))
  )
  outside = 0
  for i in range(30):
    example = made.example(i, 0, 0, True)
    first, second = (example[n] for n in ("image", "image_second"))
    outside += second.max() > first.max() or second.min() < first.min()
  # Two independent quarters differ in 3 of 4 pairs.
  assert outside > 12


def test_the_second_look_has_draws_of_its_own_and_leaves_the_first(rng):
  picture = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
  other = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
  example = {"image": picture, "other": other, "text": "a"}
  view = SecondView(size=8, field="other", crop_scale=(0.2, 0.5))
  made = view(example, np.random.default_rng(0), train=True)
  again = view(example, np.random.default_rng(1), train=True)
  np.testing.assert_array_equal(made["image"], picture)
  assert made["text"] == "a"
  assert np.any(made["image_second"] != again["image_second"])
  assert list(view.specs()) == ["image_second"]
  assert view.specs()["image_second"].matches(made["image_second"][None])


def test_held_out_pictures_are_seen_whole(rng):
  other = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
  view = SecondView(size=8, field="other", crop_scale=(0.2, 0.5))
  made = view({"other": other}, np.random.default_rng(0), train=False)
  np.testing.assert_array_equal(made["image_second"], other)
