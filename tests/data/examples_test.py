import threading

import numpy as np
import pytest

from mmjax.core import errors
from mmjax.data import broken, pipeline
from mmjax.data.examples import Pipeline
from mmjax.data.transforms import image

CONFIG = dict(
  source="synthetic",
  image=dict(size=16, color_jitter=0.2, mask=dict(rate=0.5, patch_size=4)),
  text=dict(max_tokens=12, mask=dict(rate=0.3)),
)


def _same(a, b):
  return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


def test_example_is_a_pure_function():
  one, other = (pipeline.build_pipeline(CONFIG) for _ in range(2))
  first = one.example(5, 2, 7, train=True)
  for i in (9, 5, 1):  # Other calls in between change nothing.
    other.example(i, 0, 0, train=True)
  assert _same(first, other.example(5, 2, 7, train=True))


@pytest.mark.parametrize("call", [(5, 2, 8), (5, 3, 7), (6, 2, 7)])
@pytest.mark.parametrize("name", ["image", "image_hidden", "text_masked"])
def test_seed_epoch_and_index_each_matter(call, name):
  made = pipeline.build_pipeline(CONFIG)
  first = made.example(5, 2, 7, train=True)
  assert not np.array_equal(first[name], made.example(*call, True)[name])


def test_another_transform_changes_nothing_of_the_others():
  whole = pipeline.build_pipeline(CONFIG).example(3, 1, 4, train=True)
  part = pipeline.build_pipeline(
    dict(source="synthetic", text=CONFIG["text"])
  ).example(3, 1, 4, train=True)
  assert _same(part, {name: whole[name] for name in part})


def test_threads_do_not_disturb_each_other():
  made = pipeline.build_pipeline(CONFIG)
  want = [made.example(i, 0, 0, train=True) for i in range(20)]
  wrong = []

  def work():
    for i in range(20):
      if not _same(made.example(i, 0, 0, train=True), want[i]):
        wrong.append(i)

  threads = [threading.Thread(target=work) for _ in range(4)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert wrong == []


def test_evaluation_has_the_texts_of_the_source_and_training_has_not():
  made = pipeline.build_pipeline(CONFIG)
  assert set(made.example(0, 0, 0, train=True)) == set(made.specs)
  example = made.example(0, 0, 0, train=False)
  assert example["label_en"] == "red square"
  assert set(example) - set(made.specs) == {
    "concept",
    "artist",
    "group",
    "subgroup",
    "label_en",
    "tags_en",
    "label_zh",
    "tags_zh",
  }


class Rows:
  """A source from a list, which counts its reads."""

  def __init__(self, rows):
    self.rows, self.reads = rows, 0

  def __len__(self):
    return len(self.rows)

  def __getitem__(self, index, /):
    self.reads += 1
    return self.rows[index]


def test_cache_saves_reads_and_changes_nothing(rng):
  pixels = rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)
  with_cache, without = Rows([{"image": pixels}]), Rows([{"image": pixels}])
  a = Pipeline(with_cache, [image.ImageTransform(size=4)], cache_mib=1)
  b = Pipeline(without, [image.ImageTransform(size=4)], cache_mib=0)
  for epoch in range(3):
    assert _same(a.example(0, epoch, 0, True), b.example(0, epoch, 0, True))
  assert (with_cache.reads, without.reads) == (1, 3)


def test_cache_is_bounded():
  pixels = np.zeros((1024, 256, 3), np.uint8)  # 0.75 MiB.
  source = Rows([{"image": pixels}, {"image": pixels}])
  made = Pipeline(source, [image.ImageTransform(size=4)], cache_mib=1)
  for _ in range(2):
    for i in range(2):
      made.example(i, 0, 0, True)
  assert source.reads == 3  # Only the first of the two fits.


def test_a_broken_example_is_named():
  source = Rows([{"image": b"not a picture", "key": "a/b.png"}])
  made = Pipeline(source, [image.ImageTransform()], name="mine", split="train")
  with pytest.raises(
    broken.BadExample,
    match=r"Example 0 \(a/b.png\) of 'mine', split 'train'.*not a picture",
  ):
    made.example(0, 0, 0, True)


class Raise:
  """A transform that raises."""

  def __init__(self, error):
    self.error = error

  def specs(self):
    return {}

  def __call__(self, example, rng, *, train):
    raise self.error


@pytest.mark.parametrize(
  "error, reason",
  [
    (ValueError("no sound"), "no sound"),
    (OSError("the disk is gone"), "the disk is gone"),
    (KeyError("mood"), "KeyError: 'mood'"),
  ],
)
def test_what_the_data_are_to_blame_for_is_a_bad_example(error, reason):
  made = Pipeline(Rows([{}]), [Raise(error)], max_bad_fraction=1.0)
  with pytest.raises(broken.BadExample) as e:
    made.example(0, 0, 0, True)
  assert e.value.reason == reason
  assert made.try_example(0, 0, 0, True) is None
  assert made.bad.reasons == {reason: 1}


def test_a_missing_field_is_a_fault_of_the_config():
  made = Pipeline(Rows([{"picture": b""}]), [image.ImageTransform()], name="m")
  with pytest.raises(
    errors.UserError, match="Example 0 of 'm'.*'image'.*'picture'"
  ):
    made.try_example(0, 0, 0, True)


class Damaged(Rows):
  """Reading raises."""

  def __getitem__(self, index, /):
    raise self.rows[index]


def test_reading_may_raise_nearly_anything():
  rows = Damaged([RuntimeError("bad chunk"), EOFError("cut"), TypeError("x")])
  made = Pipeline(rows, [], max_bad_fraction=1.0)
  for index, reason in enumerate(["RuntimeError: bad chunk", "EOFError: cut"]):
    with pytest.raises(broken.BadExample, match=f"cannot be read: {reason}"):
      made.example(index, 0, 0, True)
  with pytest.raises(TypeError):  # A fault of the source's code.
    made.example(2, 0, 0, True)
