"""The language of tables, against what its lines are said to mean."""

import re

import numpy as np
import pytest

from mmjax.convert import FAMILIES, lines, tensors
from mmjax.convert.configs import ABSENT
from mmjax.convert.family import Family, Source
from mmjax.convert.mapping import Copy, Ignored, Refused
from mmjax.convert.tables import keys, rules
from mmjax.convert.transforms import Flat, Matrix, Merged, Same
from mmjax.core import errors


def _key(text, **given):
  (key,) = keys(text, **given)
  return key


def _rule(text):
  ((_, (found,)),) = rules(text)
  return found


def _names(text):
  return [(r.ours, r.theirs) for _, found in rules(text) for r in found]


def test_a_key_is_the_same_on_both_sides():
  key = _key("size.embed_dim <-> hidden_size")
  assert (key.ours, key.theirs) == ("size.embed_dim", "hidden_size")
  assert (key.value, key.default, key.when) == (ABSENT, ABSENT, "")
  assert key.into(7) == 7 and key.back("x") == "x"


@pytest.mark.parametrize(
  "text, default",
  [
    ("1e-5", 1e-5),
    ("gelu", "gelu"),
    ("False", False),
    ("None", None),
    ('("a",)', ("a",)),
    ("$known", 3),
  ],
)
def test_a_default_is_a_literal_a_word_or_what_is_given(text, default):
  assert _key(f"a <-> b ? {text}", known=3).default == default


def test_values_are_converted_by_name_or_by_what_is_given():
  key = _key("a <-> b ? gelu_new : activation")
  assert key.default == "gelu_new"
  assert key.into("gelu_new") == "gelu_tanh" and key.back("relu") == "relu"
  key = _key("a <-> b : $twice", twice=(lambda x: 2 * x, lambda x: x // 2))
  assert key.into(3) == 6 and key.back(6) == 3


def test_each_activation_comes_back_as_the_same_function():
  key = _key("a <-> b : activation")
  for theirs in ("gelu", "gelu_new", "gelu_pytorch_tanh", "quick_gelu", "silu"):
    assert key.into(key.back(key.into(theirs))) == key.into(theirs)


def test_what_is_fixed_on_one_side():
  one, two, three, four = keys("""
    name=vit registers~4
    <-> qkv_bias=True dropout~0.0
  """)
  assert (one.ours, one.theirs, one.value) == ("name", "", "vit")
  assert (two.ours, two.value, two.checked) == ("registers", 4, False)
  assert (three.ours, three.theirs, three.value) == ("", "qkv_bias", True)
  assert three.checked and not four.checked and four.value == 0.0


@pytest.mark.parametrize(
  "when, otherwise",
  [
    ("mask", "!mask"),
    ("!mask", "mask"),
    ("a|b", "!a !b"),
    ("a !b", "!a|b"),
  ],
)
def test_else_is_of_the_models_that_are_left(when, otherwise):
  here, there = keys(f"hidden=replace if {when} else drop")
  assert (here.value, here.when) == ("replace", when)
  assert (there.value, there.when) == ("drop", otherwise)


def test_a_header_stands_before_names_and_a_slash_takes_it_away():
  made = keys("""
    # Of the pictures.
    [model.image. <-> vision_config. if tower]
    a <-> b
    /c <-> /d if part
    []
    e <-> f
  """)
  assert [(k.ours, k.theirs, k.when) for k in made] == [
    ("model.image.a", "vision_config.b", "tower"),
    ("c", "d", "tower part"),
    ("e", "f", ""),
  ]


def test_braces_say_a_name_several_times():
  assert [(k.ours, k.theirs) for k in keys("x_{a,b} <-> {c,d}.y")] == [
    ("x_a", "c.y"),
    ("x_b", "d.y"),
  ]
  made = keys("[{image,text}. <-> shared.]\na <-> b\n{c,d}=1")
  assert [(k.ours, k.theirs) for k in made] == [
    ("image.a", "shared.b"),
    ("text.a", "shared.b"),
    *((f"{m}.{n}", "") for m in ("image", "text") for n in ("c", "d")),
  ]


def test_shared_lines_stand_where_they_are_named(monkeypatch):
  monkeypatch.setitem(lines.KEYS, "inner", "c <-> d if q")
  monkeypatch.setitem(lines.KEYS, "outer", "[z.]\na <-> b\n@inner")
  made = keys("[x. <-> y. if p]\n@outer if o\n")
  assert [(k.ours, k.theirs, k.when) for k in made] == [
    ("x.z.a", "y.b", "p o"),
    ("x.z.c", "y.d", "p o q"),
  ]


def test_a_line_goes_on_after_a_backslash():
  assert _names("a/b <-> \\\n      {p}c.d") == [(("a/b",), ("{p}c.d",))]


def test_a_module_is_a_rule_for_each_parameter():
  ((when, (kernel, bias)),) = rules("""
    [stack/layer_{i}/ <-> {p}layer.{i}.]
    out <-> dense : linear(2) if label
  """)
  assert when == "label"
  assert kernel.ours == ("stack/layer_{i:02d}/out/kernel",)
  assert kernel.theirs == ("{p}layer.{i}.dense.weight",)
  assert kernel.how == Matrix(2) and bias.how == Flat()
  assert bias.theirs == ("{p}layer.{i}.dense.bias",)


def test_what_is_merged_takes_all_names_of_a_line():
  ((_, (kernel, bias)),) = rules("a/{query,key,value} <-> qkv : merged")
  assert kernel.ours == ("a/query/kernel", "a/key/kernel", "a/value/kernel")
  assert kernel.theirs == ("qkv.weight",) and kernel.how == Merged(0, Matrix())
  assert len(bias.ours) == 3 and bias.how == Merged(0, Flat())
  assert _names("a/{q,k} <-> in_proj : in_proj")[0][1] == ("in_proj_weight",)


def test_arrays_by_default_stay_as_they_are():
  found = _rule("a <-> b")
  assert found.how == Same() and (found.ours, found.theirs) == (("a",), ("b",))
  assert _rule("a <-> b : lead(2)").how == Same(lead=2)


def test_words_in_brackets_are_keys_of_their_config():
  table = _rule("table <-> words.weight : rows(text_config.vocab_size)")
  how = table.how({"text_config.vocab_size": 2})
  made = how.into([np.ones((2, 3), np.float32)], [(4, 3)])[0]
  np.testing.assert_array_equal(made, [[1] * 3] * 2 + [[0] * 3] * 2)
  bias = _rule("bias : absent(vocab_size)")
  assert bias.theirs == ()
  made = bias.how({"vocab_size": 1}).into([], [(2,)])[0]
  assert made[0] == 0 and made[1] < -1e3  # Never said.


def test_lines_of_theirs_alone():
  made = [
    found
    for _, (found,) in rules(r"""
    [ <-> head.]
    = bias of decoder.bias
    = /{p}out.weight of /{p}words.weight
    - ids\..* : 0, 1, 2, ...
    ! rank\..* : no such head
  """)
  ]
  assert made == [
    Copy("head.bias", "head.decoder.bias"),
    Copy("{p}out.weight", "{p}words.weight"),
    Ignored(r"ids\..*", "0, 1, 2, ..."),
    Refused(r"rank\..*", "no such head"),
  ]


def test_else_under_a_header_is_still_of_its_models():
  made = keys("[a. if heads]\nx=1 if p else 2")
  assert [(k.value, k.when) for k in made] == [(1, "heads p"), (2, "heads !p")]


@pytest.mark.parametrize(
  "text, problem",
  [
    ("a <-> b : activaton", "Did you mean 'activation'"),
    ("a <-> b ? $nothing", "not given '.nothing'"),
    ("{a,b,c} <-> {d,e}", "3 names and 2"),
    ("a = b", "'a' is no name=value"),
    ("a=1 if p q|r else 2", "no 'else' after 'p q|r'"),
    ("a=1 b=2 if p else 3", "one name=value before 'if'"),
    ("a=1 if p else 2 b=3", "one value after 'else'"),
    ("a=true", "'true' is no literal"),
    ("a==3", "'a==3' is no name=value"),
    ("a <-> b # note", "'b # note' is no name"),
    ("a <-> b: activation", "'b: activation' is no name"),
    ("a <-> b <-> c", "'b <-> c' is no name"),
    ("a <->", "'' is no name"),
    ("{a,b <-> c", "'{a,b' is no name"),
  ],
)
def test_a_line_of_configs_that_cannot_be_read_is_named(text, problem):
  message = (
    rf"^The line {re.escape(repr(text.partition(' if ')[0]))}.*{problem}"
  )
  with pytest.raises(ValueError, match=message):
    keys(text)


@pytest.mark.parametrize(
  "text, problem",
  [
    ("a <-> b : matrx", "Did you mean 'matrix'"),
    ("a <-> b : linear(", "'linear.' is no word"),
    ("a <-> b : lead(1, 2)", "1 positional argument"),
    ("a <-> b : linear(x)", "'linear' takes numbers"),
    ("a <-> b : class", "'class' is of several"),
    ("a : linear", "<-> is missing"),
    ("a", "<-> is missing"),
    ("a -> b", "no name"),
    ("{a,b} <-> {c,d,e} : linear", "2 names and 3"),
    ("- ids", "a reason"),
    ("- ids( : none", "unterminated"),
    ("= a b", "' of ' is missing"),
  ],
)
def test_a_line_of_weights_that_cannot_be_read_is_named(text, problem):
  message = rf"^The line {re.escape(repr(text))}.*{problem}"
  with pytest.raises(ValueError, match=message):
    rules(text)


@pytest.mark.parametrize("read", [keys, rules])
@pytest.mark.parametrize(
  "text",
  [
    "a <-> b if x : activation",
    "a <-> b if p and q",
    "a <-> b if p if q",
    "a <-> b if !!p",
    "[a. if p or q]\nb <-> c",
    "[a. <->b.]\nc <-> d",
    "[if label]\na <-> b",
    "@nobody",
  ],
)
def test_parts_headers_and_shared_lines_that_cannot_be_read(read, text):
  with pytest.raises(ValueError, match="can't be read|is no .OURS|'nobody'"):
    read(text)


def test_a_key_that_is_said_twice_is_refused():
  with pytest.raises(ValueError, match="said twice: .*'b.a'"):
    keys("[b.]\na=1\n/b.a <-> c")
  assert len(keys("a=1 if p\na=2 if q")) == 2


def test_a_part_that_no_line_of_weights_has_is_refused():
  table = rules("a <-> b if label")
  with pytest.raises(ValueError, match="'lable'. Did you mean 'label'"):
    Family(name="x", keys=keys("a=1 if lable"), rules=table)
  Family(name="x", keys=keys("a=1 if label !mean"), rules=table, told=("mean",))


# Parts of each family, in the order of their lines; those beside the backbone.
PARTS = {
  "beit": ("places mask scale layer label codes mean shared", "label codes"),
  "bert": ("pooler label mlm", "label mlm"),
  "big_vision_vit": ("pooler label", ""),
  "clip": ("", ""),
  "dinov2": ("mask gated label", "label"),
  "dinov2_with_registers": ("mask gated label", "label"),
  "flava": ("heads", "heads"),
  "gpt2": ("lm", "lm"),
  "open_clip": ("", ""),
  "roberta": ("label pooler mlm", "label mlm"),
  "siglip": ("", ""),
  "timm_vit": ("label", "label"),
  "vilt": ("label mlm", "label mlm"),
  "vit": ("pooler label", "label"),
  "vit_mae": ("decoder", "decoder"),
  "whisper": ("label", ""),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_parts_and_heads(name):
  parts, heads = (set(words.split()) for words in PARTS[name])
  assert set(FAMILIES[name].parts) == parts
  assert set(FAMILIES[name].all_heads) == heads


@pytest.mark.parametrize(
  "family, part, tensor",
  [
    ("bert", "label", "classifier.weight"),
    ("roberta", "label", "classifier.out_proj.weight"),
    ("vilt", "label", "classifier.3.weight"),
    ("vilt", "mlm", "mlm_score.transform.dense.weight"),
    ("whisper", "label", "classifier.weight"),
    ("beit", "places", "{p}embeddings.position_embeddings"),
    ("beit", "codes", "lm_head.weight"),
    ("flava", "heads", "itm_head.seq_relationship.weight"),
    (
      "dinov2",
      "gated",
      "{p}encoder.layer.0.mlp.weights_in.weight",
    ),
  ],
)
def test_a_part_is_there_where_its_first_array_is(family, part, tensor):
  assert FAMILIES[family].parts[part][0] == tensor


def test_what_is_refused_says_why():
  family = Family(
    name="x", keys=(), rules=rules(r"! {p}rank\..* : no such head"), prefix="x."
  )
  source = Source({}, {"x.rank.weight": tensors.Spec((2,), "F32")})
  with pytest.raises(errors.UserError, match="'x.rank.weight': no such head"):
    family.find(source)


def test_a_head_without_a_bias_is_told_with_what_is_missing():
  source = Source(
    dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=2)
    | dict(intermediate_size=8),
    {"classifier.weight": tensors.Spec((3, 8), "F32")},
  )
  found = FAMILIES["vit"].find(source)
  assert found.has == {"label"} and found.num_labels == 0


@pytest.mark.parametrize("value", [{}, {"hidden_size": None}])
def test_what_a_default_is_made_of_has_to_be_there(value):
  with pytest.raises(errors.UserError, match="lacks 'hidden_size'"):
    FAMILIES["dinov2"].find(Source(value, {}))


def test_defaults_of_towers_come_before_what_is_made_of_them():
  towers = {"text_config": {}, "vision_config": {}}
  config = FAMILIES["siglip"].find(Source(towers, {})).config
  assert config["text_config.projection_size"] == 768
