import sys

import numpy as np
import pytest

from mmjax.core import errors
from mmjax.data import pipeline, sources, synthetic

IMAGE = dict(size=16, mask=dict(strategy="random", rate=0.5, patch_size=4))
TEXT = dict(tokenizer="starter", max_tokens=12, mask=dict(rate=0.15))


def _build(**changes):
  config = dict(
    source="synthetic", image=IMAGE, text=TEXT, label=dict(field="group")
  )
  return pipeline.build_pipeline({**config, **changes})


def test_specs_say_what_a_batch_holds():
  specs = {name: str(spec) for name, spec in _build().specs.items()}
  assert specs == {
    "image": "uint8[b, 16, 16, 3]",
    "image_hidden": "int32[b, 8]",
    "text": "int32[b, 12]",
    "text_mask": "bool[b, 12]",
    "text_masked": "int32[b, 12]",
    "text_hidden": "int32[b, 2]",
    "text_hidden_mask": "bool[b, 2]",
    "label": "int32[b]",
  }


@pytest.mark.parametrize(
  "changes, fields",
  [
    (dict(image=None, label=None), {"text", "text_mask"}),
    (dict(image={}, text=None), {"label"}),
    (dict(text=None, label={}), {"image"}),
  ],
)
def test_a_section_of_none_leaves_its_fields_out(changes, fields):
  sections = dict(image=dict(size=8), text=dict(max_tokens=8))
  made = _build(**{**sections, **changes})
  assert set(made.specs) == fields
  assert (made.tokenizer is None) == ("text" not in fields)


def test_classes_come_from_the_source_or_the_config():
  assert _build().class_names == ("circle", "diamond", "square", "triangle")
  names = ["triangle", "square", "diamond", "circle"]
  made = _build(label=dict(field="group", names=names))
  assert made.class_names == tuple(names)
  example = made.example(3, 0, 0, train=False)
  assert names[example["label"]] == example["group"]
  with pytest.raises(errors.UserError, match="Did you mean 'group'"):
    _build(label=dict(field="groups"))


def test_starter_classes_need_no_data(starter_path):
  made = pipeline.build_pipeline(
    dict(
      source="starter_emoji",
      path=starter_path,
      split="unseen_concept",
      label=dict(field="subgroup"),
    )
  )
  assert len(made) == 166
  assert len(made.class_names) == 98
  example = made.example(7, 0, 0, train=False)
  assert made.class_names[example["label"]] == example["subgroup"]


@pytest.mark.parametrize(
  "changes, message",
  [
    (dict(sorce="x"), "config.data.sorce.*Did you mean 'source'"),
    (dict(image=dict(sise=8)), "config.data.image.sise.*Did you mean 'size'"),
    (dict(text=dict(tag_rat=1.0)), "data.text.tag_rat.*'tag_rate'"),
    (dict(text=dict(mask=dict(rat=0.1))), "data.text.mask.rat'.*'rate'"),
    (dict(image=dict(mask=dict(patch=8))), "data.image.mask.patch'.*size'"),
    (dict(image=dict(mask=dict(grid=(8, 8)))), "data.image.mask.grid"),
    (dict(label=dict(fields="a")), "data.label.fields.*'field'"),
    (dict(image=dict(size=15, mask=dict(patch_size=4))), "does not divide"),
    (dict(image=dict(color_jitter=2.0)), r"config.data.image: color_jitter"),
    (dict(text=dict(tokenizer="/no/such.json")), "No tokenizer at"),
    (dict(text=dict(field="lable_en")), "Did you mean 'label_en'"),
    (dict(source="synthetics"), "Did you mean 'synthetic'"),
    (dict(image=None, text=None, label=None), "makes no fields"),
    (dict(cache_mib=-1), "cache_mib=-1"),
    (dict(max_bad_fraction=1.5), "max_bad_fraction=1.5"),
    (dict(text=dict(prefix=dict(rat=0.5))), "data.text.prefix.rat.*'rate'"),
    (dict(question=dict(template=())), "data.question.*'templates'"),
    (dict(answer=dict(max_tokens=8)), "data.answer needs.*'field'"),
    (dict(text=None, answer=dict(field="group")), "data.answer needs"),
    (dict(answer=dict(field="group", output="x")), "data.answer.output"),
    (dict(extra=({"size": 3},)), "extra.0. has no 'name'"),
    (dict(extra=({"name": "no_such_module:X"},)), "no_such_module"),
  ],
)
def test_mistakes_are_told_at_once(changes, message):
  with pytest.raises(errors.UserError, match=message):
    _build(**changes)


def test_questions_are_read_as_text_answers_as_text_or_label():
  names = ("red", "circle", "blue", "square", "green", "triangle")
  names += ("black", "orange", "purple", "diamond")
  made = _build(
    image=None,
    question=dict(
      templates=[["what shape?", "group"], ["what color?", "subgroup"]]
    ),
    text=dict(max_tokens=12, field="question", prefix=dict(), parallel=dict()),
    answer=dict(max_tokens=6, field="answer_text"),
    label=dict(field="answer_text", names=names),
  )
  assert set(made.specs) == {
    *("text", "text_mask", "answer", "answer_mask", "label")
  }
  asked = set()
  for index in range(20):
    example = made.example(index, 0, 0, train=False)
    words = made.tokenizer.decode(example["text"])
    answer = made.tokenizer.decode(example["answer"])
    assert answer == example["answer_text"] == names[example["label"]]
    field = {"what shape?": "group", "what color?": "subgroup"}[words]
    assert example[field] == answer
    asked.add(words)
    again = made.example(index, 0, 0, train=True)
    np.testing.assert_array_equal(again["text"], example["text"])
  assert len(asked) == 2


def test_prefixes_and_what_is_said_at_once_are_drawn_with_the_text():
  text = dict(max_tokens=12, prefix=dict(rate=1.0), parallel=dict(rate=0.5))
  made = _build(image=None, text=text, label=None)
  assert set(made.specs) == {
    *("text", "text_mask", "text_prefix", "text_parallel")
  }
  examples = [made.example(i, 0, 0, train=True) for i in range(20)]
  assert len({bool(e["text_parallel"]) for e in examples}) == 2
  for example in examples:
    assert 1 <= example["text_prefix"] < example["text_mask"].sum()


def test_caption_settings_do_not_hinder_a_text_field():
  made = _build(
    text=dict(max_tokens=16, field="label_zh", tag_rate=0.5, languages=("en",))
  )
  example = made.example(0, 0, 0, train=False)
  assert made.tokenizer.decode(example["text"]) == example["label_zh"]


def test_config_may_come_from_json():
  made = _build(
    image=dict(size=8, crop_scale=[0.5, 1.0]), text=dict(languages=["zh"])
  )
  assert made.transforms[0].crop_scale == (0.5, 1.0)
  assert made.transforms[1].caption.languages == ("zh",)


PLUG_IN = """
import dataclasses
import numpy as np
from mmjax.core.batch import FieldSpec

@dataclasses.dataclass(frozen=True)
class Brightness:
  scale: float = 1.0
  wrong: bool = False

  def specs(self):
    return {"brightness": FieldSpec((1,), "float32")}

  def __call__(self, example, rng, *, train):
    value = np.array([example["image"].mean() * self.scale], np.float32)
    return {**example, "brightness": value.astype(int) if self.wrong else value}
"""


@pytest.fixture
def plug_in(tmp_path, monkeypatch):
  (tmp_path / "my_transform.py").write_text(PLUG_IN)
  monkeypatch.syspath_prepend(str(tmp_path))
  yield "my_transform:Brightness"
  sys.modules.pop("my_transform", None)


def test_plug_in_transform(plug_in):
  made = _build(extra=({"name": plug_in, "scale": 0.5},))
  example = made.example(0, 0, 0, train=True)
  want = 0.5 * example["image"].mean()
  np.testing.assert_allclose(example["brightness"], [want], rtol=1e-6)
  with pytest.raises(errors.UserError, match=r"extra\[0\].scal.*'scale'"):
    _build(extra=({"name": plug_in, "scal": 0.5},))


def test_plug_in_that_breaks_its_promise_is_refused(plug_in):
  with pytest.raises(errors.UserError, match="declared as float32.*int64"):
    _build(extra=({"name": plug_in, "wrong": True},))


@pytest.mark.parametrize("second", ["group", "itself"])
def test_a_second_look_is_of_the_partner_or_of_itself(second):
  made = _build(image=dict(size=16, second=second), text=None)
  assert str(made.specs["image_second"]) == "uint8[b, 16, 16, 3]"
  example = made.example(0, 0, 0, train=False)
  same = np.array_equal(example["image"], example["image_second"])
  assert same == (second == "itself")
  crops = made.example(0, 0, 0, train=True)
  assert np.any(crops["image"] != crops["image_second"])
  if second == "group":
    others = [
      i
      for i in range(1, len(made))
      if made.source[i]["group"] == example["group"]
    ]
    partner = made.example(others[0], 0, 0, train=False)
    np.testing.assert_array_equal(example["image_second"], partner["image"])


class Partly(synthetic.SyntheticSource):
  """Drawn pictures, of which the first ones are damaged."""

  def __init__(self, *, split, path=""):
    super().__init__(split=split)
    self.bad = int(path)

  def __getitem__(self, index, /):
    example = super().__getitem__(index)
    return {**example, "image": b"cut"} if index < self.bad else example


def test_broken_first_examples_do_not_hinder(monkeypatch):
  monkeypatch.setitem(sources.SOURCES, "partly", Partly)
  made = _build(source="partly", path="3", max_bad_fraction=0.25)
  assert len(made.bad) == 0 and made.bad.max_fraction == 0.25
  with pytest.raises(errors.UserError, match="Did you mean 'label_en'"):
    _build(source="partly", path="3", text=dict(field="lable_en"), image=None)
  with pytest.raises(errors.UserError) as e:
    _build(source="partly", path="1024")
  assert "None of the first 100 examples of 'partly'" in str(e.value)
  assert "100  not a picture that Pillow reads" in str(e.value)
