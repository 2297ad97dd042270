import numpy as np
import pytest

from mmjax.core import errors
from mmjax.data.tokenizer import TextTokenizer
from mmjax.data.transforms import text

EXAMPLE = {
  "label_en": "red apple",
  "tags_en": "fruit|food|round|sweet",
  "label_zh": "红苹果",
  "tags_zh": "水果|食物",
  "title": "An apple.",
}


@pytest.fixture(scope="module")
def tokenizer():
  return TextTokenizer.load("starter")


def test_caption_in_evaluation_is_label_and_all_tags_in_order(rng):
  caption = text.Caption(languages=("en", "zh"), tag_rate=0.0)
  out = caption(EXAMPLE, rng, train=False)
  assert out == "red apple, fruit, food, round, sweet"


def test_caption_in_training_draws_tags_at_the_rate_in_any_order(rng):
  caption = text.Caption(tag_rate=0.25)
  tags = EXAMPLE["tags_en"].split("|")
  kept, firsts = dict.fromkeys(tags, 0), set()
  for _ in range(1000):
    label, *found = caption(EXAMPLE, rng, train=True).split(", ")
    assert label == "red apple"
    assert len(set(found)) == len(found)
    for tag in found:
      kept[tag] += 1
    firsts |= set(found[:1])
  # 250 each; standard deviation sqrt(1000 * 0.25 * 0.75) = 14.
  assert all(abs(n - 250) < 5 * 14 for n in kept.values())
  assert firsts == set(tags)


def test_caption_in_training_draws_one_of_the_languages(rng):
  caption = text.Caption(languages=("en", "zh"), tag_rate=1.0)
  found = [caption(EXAMPLE, rng, train=True) for _ in range(200)]
  chinese = [c for c in found if c.startswith("红苹果")]
  assert 60 < len(chinese) < 140
  assert set(chinese) == {"红苹果, 水果, 食物", "红苹果, 食物, 水果"}


def test_caption_without_tags_is_the_label(rng):
  caption = text.Caption()
  for example in ({"label_en": "a"}, {"label_en": "a", "tags_en": ""}):
    assert caption(example, rng, train=True) == "a"


def test_text_transform_encodes_and_masks_padding(rng, tokenizer):
  transform = text.TextTransform(
    tokenizer=tokenizer, max_tokens=8, field="title"
  )
  out = transform(EXAMPLE, rng, train=True)
  np.testing.assert_array_equal(out["text"], tokenizer.encode("An apple.", 8))
  length = tokenizer.num_tokens("An apple.")
  assert out["text_mask"].tolist() == [i < length for i in range(8)]
  for name, spec in transform.specs().items():
    assert spec.matches(out[name][None])


def test_text_transform_names_a_missing_field(rng, tokenizer):
  transform = text.TextTransform(tokenizer=tokenizer, field="titel")
  with pytest.raises(errors.UserError, match="Did you mean 'title'"):
    transform(EXAMPLE, rng, train=True)
  captions = text.TextTransform(
    tokenizer=tokenizer, caption=text.Caption(languages=("de",))
  )
  with pytest.raises(errors.UserError, match="'label_de'"):
    captions(EXAMPLE, rng, train=True)


def test_a_field_that_holds_no_text_is_a_broken_example():
  with pytest.raises(ValueError, match="'n' holds a NoneType, expected text"):
    text.text_field({"n": None}, "n")


def test_mask_text_adds_static_shapes(rng, tokenizer):
  encode = text.TextTransform(tokenizer=tokenizer, max_tokens=12)
  mask = text.MaskText(tokenizer=tokenizer, max_tokens=12, rate=0.2)
  assert mask.slots == 3  # 0.2 * 12 = 2.4, rounded up.
  for train in (True, False):
    clean = encode(EXAMPLE, rng, train=train)
    out = mask(clean, rng, train=train)
    np.testing.assert_array_equal(out["text"], clean["text"])
    for name, spec in mask.specs().items():
      assert spec.matches(out[name][None])
    changed = np.flatnonzero(out["text_masked"] != out["text"])
    hidden = out["text_hidden"][out["text_hidden_mask"]]
    assert set(changed) <= set(hidden)
    assert (out["text"][hidden] >= 5).all()


@pytest.mark.parametrize(
  "make, message",
  [
    (lambda t: text.Caption(languages=()), "languages"),
    (lambda t: text.Caption(tag_rate=1.5), "tag_rate=1.5"),
    (lambda t: text.TextTransform(tokenizer=t, max_tokens=2), "max_tokens=2"),
    (lambda t: text.MaskText(tokenizer=t, rate=0.0), "rate=0.0"),
  ],
)
def test_wrong_settings_are_refused_at_once(tokenizer, make, message):
  with pytest.raises(errors.UserError, match=message):
    make(tokenizer)


@pytest.mark.parametrize("strategy", ["word", "span"])
def test_mask_text_takes_words_from_the_tokenizer(rng, tokenizer, strategy):
  example = {"title": "An unbelievable pomegranate, halved."}
  encode = text.TextTransform(tokenizer=tokenizer, max_tokens=24, field="title")
  mask = text.MaskText(
    tokenizer=tokenizer, max_tokens=24, rate=0.4, strategy=strategy
  )
  clean = encode(example, rng, train=True)
  begins = tokenizer.starts_word[clean["text"]]
  assert not begins[1 : tokenizer.num_tokens(example["title"]) - 1].all()
  for _ in range(50):
    out = mask(clean, rng, train=True)
    for name, spec in mask.specs().items():
      assert spec.matches(out[name][None])
    hidden = out["text_hidden"][out["text_hidden_mask"]]
    if strategy == "word":  # What goes on with a hidden word is hidden too.
      after = hidden[~np.isin(hidden + 1, hidden)] + 1
      assert (begins | (clean["text"] < 5))[after].all()


def test_an_unknown_strategy_is_refused_with_the_nearest(tokenizer):
  with pytest.raises(errors.UserError, match="Did you mean 'word'"):
    text.MaskText(tokenizer=tokenizer, strategy="words")
