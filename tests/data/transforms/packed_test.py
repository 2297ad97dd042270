import itertools

import numpy as np
import pytest

from mmjax.core import errors
from mmjax.data.pipeline import build_pipeline
from mmjax.data.transforms.packed import PACKED

MASK = dict(rate=0.3)


def _pipeline(*, image=None, **text):
  text = dict(max_tokens=64, pack=True) | text
  source = dict(source="starter_emoji", split="unseen_concept")
  return build_pipeline(dict(source, text=text, image=image))


@pytest.fixture(scope="module")
def pairs():
  mask = dict(rate=0.5, patch_size=8)
  return _pipeline(
    mask=MASK, image=dict(size=16, mask=mask, max_images=6), languages=("en",)
  )


def _by_hand(pipeline, index, seed):
  """The fields of a row as lists, from its examples one by one."""
  (transform,) = pipeline.transforms
  rng = np.random.default_rng(seed)
  row = {name: [] for name in (*pipeline.specs, "starts")}
  for number, part in enumerate(pipeline.source[index][PACKED], 1):
    for single in transform.transforms:
      part = single(part, rng, train=True)
    length = int(part["text_mask"].sum())
    start = len(row["text"])
    row["text"] += part["text"][:length].tolist()
    row["text_masked"] += part["text_masked"][:length].tolist()
    row["text_segments"] += [number] * length
    row["text_positions"] += range(length)
    for at, used in zip(
      part["text_hidden"], part["text_hidden_mask"], strict=True
    ):
      row["text_hidden"] += [start + int(at)] if used else []
    row["images"].append(part["image"])
    row["images_hidden"].append(part["image_hidden"])
  return row


def test_a_row_is_its_texts_one_after_the_other(pairs):
  (transform,) = pairs.transforms
  for index in range(5):
    row = pairs.source[index]
    assert len(row[PACKED]) > 1
    got = transform(row, np.random.default_rng(index), train=True)
    want = _by_hand(pairs, index, index)
    used = len(want["text"])
    assert got["text_mask"].tolist() == [i < used for i in range(64)]
    pad = {"text": 0, "text_masked": 0, "text_segments": 0, "text_positions": 0}
    for name, filler in pad.items():
      assert got[name].tolist() == want[name] + [filler] * (64 - used), name
    count = len(want["text_hidden"])
    assert got["text_hidden"].tolist()[:count] == want["text_hidden"]
    assert got["text_hidden_mask"].sum() == count > 1
    here = len(row[PACKED])
    assert got["images_segments"].tolist() == [
      i + 1 if i < here else 0 for i in range(6)
    ]
    assert got["images_mask"].tolist() == [i < here for i in range(6)]
    np.testing.assert_array_equal(got["images"][:here], want["images"])
    np.testing.assert_array_equal(
      got["images_hidden"][:here], want["images_hidden"]
    )


@pytest.mark.parametrize("strategy", ["token", "word", "span"])
def test_every_example_is_in_one_row_and_fits_whatever_is_drawn(strategy):
  made = _pipeline(
    mask=dict(rate=0.15, strategy=strategy),
    languages=("en", "zh"),
    max_tokens=40,
  )
  rows = made.source.rows
  assert sorted(itertools.chain(*rows)) == list(range(len(made.source._source)))
  assert len(made) < 0.8 * len(made.source._source)
  for epoch in range(2):
    for index in range(0, len(made), len(made) // 20):
      example = made.example(index, epoch, 0, train=True)  # Or it is broken.
      segments = example["text_segments"][example["text_mask"]]
      assert set(segments) == set(range(1, len(rows[index]) + 1))
      # Of each text at least one token is hidden.
      at = example["text_hidden"][example["text_hidden_mask"]]
      assert set(example["text_segments"][at]) == set(segments)
      assert len(set(at)) == len(at)


def test_words_are_hidden_as_a_whole_within_their_text(pairs):
  made = _pipeline(mask=dict(rate=0.2, strategy="word"), languages=("en",))
  starts = made.tokenizer.starts_word
  for index in range(10):
    example = made.example(index, 0, 0, train=True)
    hidden = set(example["text_hidden"][example["text_hidden_mask"]].tolist())
    ids = example["text"]
    for at in hidden:
      after = at + 1  # The rest of its word.
      if made.tokenizer.content[ids[after]] and not starts[ids[after]]:
        assert after in hidden


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (dict(label=dict(field="group")), "config.data.label is of one example"),
    (dict(optional=("text",)), "config.data.optional is of one"),
    (dict(buckets=(8, 32)), "config.data.buckets is of one"),
    (dict(image=dict(size=16)), "max_images=0"),
    (dict(image=dict(size=16, max_images=2, second="itself")), "image.second"),
    (
      dict(text=dict(pack=True, prefix=dict(rate=0.5))),
      "config.data.text.prefix",
    ),
    (
      dict(image=dict(size=16, max_images=2), text=dict(max_tokens=8)),
      "text.pack=True, or leave it out",
    ),
  ],
)
def test_what_is_of_one_example_does_not_go_with_rows(changes, message):
  config = dict(source="synthetic", text=dict(max_tokens=32, pack=True))
  with pytest.raises(errors.UserError, match=message):
    build_pipeline(config | changes)
