import sys

import pytest

from mmjax.core import errors
from mmjax.data import builders, check


def test_check_of_a_prepared_folder_counts_and_shows(starter_path):
  builder = builders.prepare("starter_speech", starter_path)
  result = check.check(str(builder.data_dir), "test")
  assert result.splits == {"train": 480, "test": 55}
  assert result.checked == {"test": 55}
  assert result.num_broken == 0
  assert len(result.samples) == 3
  assert result.samples[0]["transcript_en"] == "Activated."
  assert "ogg, not decoded" in result.fields["audio"]
  assert result.fields["seconds"].startswith("number")


def test_check_looks_at_all_splits_by_default():
  result = check.check("synthetic", limit=5)
  assert result.checked == {"train": 5, "test": 5}
  assert result.fields["image"] == "picture, width x height 64x64"
  assert "64x64 picture" in result.samples[0]["image"]
  # "black circle" and the like: 4 to 8 tokens with bos and eos.
  assert sum(result.text_lengths["label_en"].values()) == 10


SOURCE = """
import io
from PIL import Image

class Mine:
  def __init__(self, *, split, path):
    file = io.BytesIO()
    Image.new("RGB", (6, 4), "red").save(file, "PNG")
    good = file.getvalue()
    self.pictures = [good, b"bad", good[:40], None, good]

  def __len__(self):
    return len(self.pictures)

  def __getitem__(self, i):
    if self.pictures[i] is None:
      raise RuntimeError("disk error")
    return {"photo": self.pictures[i], "words": "" if i == 4 else "a" * 300}
"""


@pytest.fixture
def broken(tmp_path, monkeypatch):
  (tmp_path / "broken_source.py").write_text(SOURCE)
  monkeypatch.syspath_prepend(str(tmp_path))
  yield "broken_source:Mine"
  sys.modules.pop("broken_source", None)


def test_check_lists_every_problem_by_reason(broken):
  result = check.check(broken)
  assert result.num_checked == 5 and result.num_broken == 3
  reasons = {where: r for r, found in result.broken.items() for where in found}
  assert set(reasons) == {"train[1]", "train[2]", "train[3]"}
  assert reasons["train[3]"] == "cannot be read: RuntimeError: disk error"
  assert "photo: not a picture" in reasons["train[1]"]
  assert "6x4" in result.fields["photo"]
  assert "(1 empty)" in result.fields["words"]
  assert len(result.samples) == 2
  assert len(result.samples[0]["words"]) == 80


def test_text_lengths_are_in_tokens(broken):
  result = check.check(broken)
  # Two read texts of 300 letters, which are at least 65 tokens, and the empty
  # one, which is bos and eos; broken pictures have texts too.
  histogram = result.text_lengths["words"]
  assert histogram["1-4"] == 1
  assert sum(histogram.values()) == 4


def test_format_result_tells_all(broken):
  text = check.format_result(check.check(broken))
  assert "Broken: 3 of 5 examples" in text
  assert "train[3]" in text and "disk error" in text
  text = check.format_result(check.check("synthetic", "test", limit=4))
  assert "No problem in 4 examples." in text
  assert "128 examples, 4 checked" in text


def test_what_is_no_data_set_is_told(tmp_path):
  with pytest.raises(errors.UserError, match="Did you mean 'starter_emoji'"):
    check.check("starter_emojy")
  with pytest.raises(errors.UserError, match="dataset_info.json"):
    check.check(str(tmp_path))
  with pytest.raises(errors.UserError, match="Did you mean 'test'"):
    check.check("synthetic", "tset")
