import base64

import pytest

from mmjax.report import displays, evaluations


def _show(kind, data):
  return displays.display(
    evaluations.Artifact("test", "a", kind, "Title", "", data, 10)
  )


def test_pairs_have_a_name_per_picture(make_png):
  images = [[make_png("red"), make_png("blue")], [make_png("red")] * 2]
  data = {"columns": ["x", "y"], "images": images, "captions": ["one", "two"]}
  content = _show("pairs", data).content
  names = [[n for n, _ in e["pictures"]] for e in content["examples"]]
  assert names == [["x", "y"], ["x", "y"]]
  assert [e["caption"] for e in content["examples"]] == ["one", "two"]


@pytest.mark.parametrize("size, shown", [(8, 44), (64, 80), (224, 160)])
def test_small_pictures_are_enlarged_large_ones_not(make_png, size, shown):
  assert displays.picture(make_png("red", size)).width == shown


@pytest.mark.parametrize(
  "value",
  [
    None,
    "text",
    {},
    {"png": 3},
    {"png": "no base64!"},
    {"png": base64.b64encode(b"GIF89a" + bytes(30)).decode()},
    {"png": '" onerror="alert(1)'},
  ],
)
def test_what_is_no_png_is_no_picture(value):
  assert displays.picture(value).source == ""


def test_a_gallery_counts_queries_with_a_right_result(make_png):
  def row(query, right):
    results = [
      {"image": make_png("red"), "caption": "c", "score": 0.5, "right": r}
      for r in right
    ]
    return {"query": query, "truth": "panda", "results": results}

  rows = [row("panda", [0, 1, 1]), row(make_png("blue"), [0, 0, 0])]
  content = _show("gallery", {"rows": rows}).content
  first, second = content["rows"]
  assert content["num_found"] == 1
  assert (first["rank"], first["text"], first["truth"]) == (2, "panda", "")
  assert (second["rank"], second["text"], second["truth"]) == (0, "", "panda")
  assert second["picture"].source.startswith("data:image/png;base64,")


def _token(token, predicted=None, right=False):
  hidden = predicted is not None
  return {
    "token": token,
    "hidden": hidden,
    "predicted": predicted or "",
    "right": right,
  }


def test_hidden_words_are_counted_and_spaced_as_in_the_text():
  row = [_token(" red"), _token(" pan", " dog"), _token("da", "da", True)]
  content = _show("masked_text", {"rows": [row]}).content
  assert (content["num_right"], content["num_hidden"]) == (1, 2)
  (words,) = content["rows"]
  assert [(w["gap"], w["token"]) for w in words] == [
    (False, "red"),
    (True, "pan"),
    (False, "da"),
  ]


def test_whole_words_without_spaces_are_spaced():
  row = [_token("red"), _token("panda")]
  (words,) = _show("masked_text", {"rows": [row]}).content["rows"]
  assert [w["gap"] for w in words] == [False, True]


def test_a_piece_is_told_from_a_word_of_the_same_letters():
  row = [_token(" c"), _token(" art", "art")]
  (words,) = _show("masked_text", {"rows": [row]}).content["rows"]
  assert (words[1]["token"], words[1]["predicted"]) == ("art", "…art")


def test_few_bars_have_their_names_many_have_facts():
  few = _show("bars", {"names": ["a", "b"], "values": [1, 4]}).content
  assert few["named"] == [("a", "1", 25.0), ("b", "4", 100.0)]
  names = [str(i) for i in range(512)]
  many = _show("bars", {"names": names, "values": [3] + [0] * 511}).content
  assert many["named"] == []
  assert dict(many["facts"]) == {
    "bars": "512",
    "above zero": "1",
    "zero": "511",
    "highest": "3, named 0",
    "sum": "3",
  }


def test_a_table_has_a_cell_per_column():
  content = _show("table", {"columns": ["a"], "rows": [[1], ["<b>"]]}).content
  assert content == {"columns": ["a"], "rows": [["1"], ["<b>"]]}


def test_an_unknown_kind_is_said():
  shown = _show("hologram", {})
  assert shown.problem == (
    "Not shown: kind 'hologram' is unknown. Known: bars, gallery, masked_text, "
    "matrix, pairs, table."
  )


@pytest.mark.parametrize(
  "kind, data",
  [
    ("pairs", {}),
    ("pairs", {"columns": ["a"], "images": []}),
    ("pairs", {"columns": ["a"], "images": [[None, None]]}),
    ("gallery", {"rows": [{"query": "a"}]}),
    ("gallery", {"rows": [3]}),
    ("masked_text", {"rows": [["word"]]}),
    ("masked_text", {"rows": None}),
    ("matrix", {"values": [], "row_names": [], "column_names": []}),
    ("matrix", {"values": [[1]], "row_names": ["a"], "column_names": []}),
    ("bars", {"names": ["a"], "values": []}),
    ("bars", {"names": 3, "values": 4}),
    ("table", {"columns": ["a", "b"], "rows": [["x"]]}),
    ("table", {"columns": ["a"], "rows": []}),
  ],
)
def test_data_of_another_shape_is_a_sentence(kind, data):
  shown = _show(kind, data)
  assert shown.content == {}
  assert shown.problem.startswith(
    f"Not shown: the data does not fit kind {kind!r} ("
  )


def test_pictures_come_first_and_unknown_kinds_last():
  kinds = ["hologram", "bars", "matrix", "pairs"]
  artifacts = [
    evaluations.Artifact("test", kind, kind, kind, "", {}, 1) for kind in kinds
  ]
  shown = displays.display_all(artifacts)
  assert [d.artifact.kind for d in shown] == [
    "pairs",
    "matrix",
    "bars",
    "hologram",
  ]
