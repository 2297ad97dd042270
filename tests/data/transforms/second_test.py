import numpy as np

from mmjax.data.transforms.second import SecondView


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
