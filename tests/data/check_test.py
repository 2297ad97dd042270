import io
import sys

import pytest
from PIL import Image

from mmjax.core import errors
from mmjax.data import builders, check, sources
from mmjax.data.tokenizer import TextTokenizer


def test_check_of_a_prepared_folder_counts_and_shows(starter_path):
  builder = builders.prepare("starter_speech", starter_path)
  result = check.check(str(builder.data_dir), "test")
  assert result.splits == {"train": 480, "test": 55}
  assert result.checked == {"test": 55}
  assert result.num_broken == 0
  assert len(result.samples) == 3
  assert result.samples[0]["transcript_en"] == "Activated."
  # The shortest and the longest are as long as the table says.
  kind, _, seconds = result.fields["seconds"].partition("float64 ")
  assert result.fields["audio"] == f"recording, 8000 Hz, seconds {seconds}"
  assert kind == "number, "


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


MEDIA = """
import io
import numpy as np
import soundfile
from PIL import Image

def sound(count, rate=8000):
  file = io.BytesIO()
  samples = np.zeros(count, np.float32)
  soundfile.write(file, samples, rate, "FLOAT", format="WAV")
  return file.getvalue()

def film(count):
  file = io.BytesIO()
  frames = [Image.new("RGB", (6, 4), (20 * i, 0, 0)) for i in range(count)]
  frames[0].save(file, "WEBP", save_all=True, append_images=frames[1:])
  return file.getvalue()

class Mine:
  def __init__(self, *, split, path):
    nan = np.array([0.5, np.nan], np.float32)
    self.rows = [
      (sound(4000), film(3), nan[:1]),
      (sound(8000), film(1), nan[:1]),
      (sound(0), film(2), nan[:1]),
      (sound(800)[:60], film(2), nan[:1]),
      (sound(800), film(3)[:-9], nan[:1]),
      (sound(800), b"RIFF", nan),
      (None, film(2), nan[:1]),
    ]

  def __len__(self):
    return len(self.rows)

  def __getitem__(self, i):
    return dict(zip(("speech", "clip", "wave"), self.rows[i]))
"""


def test_check_decodes_recordings_and_clips(tmp_path, monkeypatch):
  (tmp_path / "media_source.py").write_text(MEDIA)
  monkeypatch.syspath_prepend(str(tmp_path))
  result = check.check("media_source:Mine")
  sys.modules.pop("media_source")

  assert result.fields["speech"] == "recording, 8000 Hz, seconds 0.1 to 1"
  assert result.fields["clip"] == (
    "clip, frames x width x height 1x6x4 to 3x6x4"
  )
  assert result.samples[0]["speech"] == "<0.5 s at 8000 Hz, peak 0.00>"
  assert result.samples[0]["clip"].startswith("<3 frames of 6x4, mean RGB 2")
  reasons = {where: r for r, found in result.broken.items() for where in found}
  assert reasons["train[2]"] == "speech: the recording has no samples"
  assert reasons["train[3]"].startswith("speech: ")
  assert reasons["train[4]"].startswith("clip: not a clip")
  clip, wave = (r for r, found in result.broken.items() if "train[5]" in found)
  assert clip.startswith("clip: not a ")  # By Pillow or PyAV.
  assert wave == "wave: holds NaN or infinite numbers"
  assert reasons["train[6]"] == "speech: holds nothing (None)"
  assert result.num_broken == 5


class Damaged:
  """Thirty rows, of which none is a picture but the first."""

  def __init__(self, *, split, path):
    file = io.BytesIO()
    Image.new("RGB", (2, 2)).save(file, "PNG")
    self.picture = file.getvalue()

  def __len__(self):
    return 31

  def __getitem__(self, index, /):
    return {"photo": b"cut" if index else self.picture}


def test_every_broken_example_is_listed_under_its_reason(monkeypatch):
  monkeypatch.setitem(sources.SOURCES, "damaged", Damaged)
  result = check.check("damaged")
  # Pillow names the object that it read, another one each time.
  (reason,) = result.broken
  assert "cannot identify image file <_io.BytesIO object>" in reason
  lines = check.format_result(result).splitlines()
  start = lines.index(f"      30  {reason}")
  assert " ".join(" ".join(lines[start + 1 :]).split()) == ", ".join(
    f"train[{i}]" for i in range(1, 31)
  )
  assert max(map(len, lines[start + 1 :])) <= 80


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
  starter = TextTokenizer.load("starter")
  assert f"Tokenizer  BPE, 2,048 tokens, id {starter.id}" in text
  assert "bytes per token, 0 % unknown" in text


def test_what_is_no_data_set_is_told(tmp_path):
  with pytest.raises(errors.UserError, match="Did you mean 'starter_emoji'"):
    check.check("starter_emojy")
  with pytest.raises(errors.UserError, match="Nothing to read in"):
    check.check(str(tmp_path))
  with pytest.raises(errors.UserError, match="Did you mean 'test'"):
    check.check("synthetic", "tset")
