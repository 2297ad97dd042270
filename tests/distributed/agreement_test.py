import sys
import types

import numpy as np

from mmjax.distributed import agreement

NAMES = ["process 0 (a, pid 1)", "process 1 (b, pid 2)"]


def test_same_facts_agree():
  facts = {"config": {"train": {"seed": 0}}, "code": "abc"}

  assert agreement.compare([facts, dict(facts)], NAMES) == ""


def test_difference_names_key_values_and_process():
  text = agreement.compare(
    [{"config": {"train": {"seed": 0}}}, {"config": {"train": {"seed": 7}}}],
    NAMES,
  )

  assert "config.train.seed: 0 in process 0 (a, pid 1)" in text
  assert "7 in process 1 (b, pid 2)" in text


def test_many_differences_are_cut():
  rows = [{str(i): j for i in range(30)} for j in range(2)]

  text = agreement.compare(rows, NAMES)

  assert text.count(" in process 1") == agreement.MOST_LINES
  assert "and 20 more" in text


def test_fingerprint_changes_with_an_imported_plug_in(tmp_path, monkeypatch):
  file = tmp_path / "plug.py"
  file.write_text("A = 1\n")
  module = types.ModuleType("plug")
  module.__file__ = str(file)

  without = agreement.code_fingerprint(tmp_path)
  monkeypatch.setitem(sys.modules, "plug", module)
  first = agreement.code_fingerprint(tmp_path)
  file.write_text("A = 2\n")

  assert len({without, first, agreement.code_fingerprint(tmp_path)}) == 3
  assert agreement.code_fingerprint() == without


def test_shapes_are_texts():
  batch = {"main": {"text": np.zeros((4, 7), np.int32)}}

  assert agreement.shapes(batch) == {"main": {"text": "int32[4, 7]"}}


def test_gather_of_one_process_is_its_text():
  assert agreement.gather("é") == ["é"]
