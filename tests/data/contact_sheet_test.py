import base64
import io
import re

import numpy as np
import pytest
import soundfile
from PIL import Image

from mmjax.cli import main
from mmjax.core import errors
from mmjax.data import contact_sheet

RED, BLUE = (250, 10, 20), (10, 20, 250)


def encoded(*frames):
  file = io.BytesIO()
  first, *rest = (Image.new("RGB", (320, 160), color) for color in frames)
  first.save(file, "WEBP", save_all=True, append_images=rest, lossless=True)
  return file.getvalue()


def sound():
  file = io.BytesIO()
  loud = np.repeat([0.0, 1.0], 4000)
  soundfile.write(file, loud, 8000, format="WAV", subtype="FLOAT")
  return file.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  root = tmp_path_factory.mktemp("pets")
  for name, content in {
    "0.webp": encoded(RED),
    "0.txt": "<b>red & bold</b>",
    "1.webp": b"<html>",
    "1.txt": "not there",
    "2.wav": sound(),
    "3.webp": encoded(BLUE),
    "3.txt": "blue\n蓝",
  }.items():
    if isinstance(content, bytes):
      (root / name).write_bytes(content)
    else:
      (root / name).write_text(content, "utf-8")
  return root


class Gone:
  """A source of one record, which cannot be read."""

  def __len__(self):
    return 1

  def __getitem__(self, index, /):
    raise OSError("gone")


def test_tiles_hold_what_an_example_looks_like():
  examples = [
    {"image": encoded(RED), "text": ("a", "b"), "n": 3},
    {"clip": encoded(RED, BLUE), "image": encoded(BLUE)},
    {"audio": sound()},
    {"image": b"cut", "text": "c"},
  ]
  red, two, loud, cut = contact_sheet.tiles(examples, "train", 9)
  assert red.where == "train[0]" and red.texts == {"text": "a | b", "n": "3"}
  (picture,) = red.pictures
  assert picture.shape == (80, 160, 3) and (picture == RED).all()
  assert [tuple(p[0, 0]) for p in two.pictures] == [RED, BLUE, BLUE]
  (wave,) = loud.pictures
  inked = (wave[..., 2] < 220).sum(axis=0)
  assert (inked[:79] == 1).all() and (inked[-79:] > 50).all()
  assert "image: not a picture" in cut.problem and cut.texts == {"text": "c"}
  few = contact_sheet.tiles([{}] * 101, "test", 3)
  assert [t.where for t in few] == ["test[0]", "test[50]", "test[100]"]
  assert contact_sheet.tiles(Gone(), "test", 1) == [
    contact_sheet.Tile("test[0]", (), {}, "cannot be read: OSError: gone")
  ]


def test_the_page_holds_its_pictures_and_escapes_its_texts(folder, tmp_path):
  file = tmp_path / "sheet.html"
  assert main.main(["data", "check", str(folder), f"--sheet={file}"]) == 2
  page = file.read_text("utf-8")
  assert "&lt;b&gt;red &amp; bold&lt;/b&gt;" in page and "蓝" in page
  assert "not a picture" in page and "<b>red" not in page
  assert not re.search(r"(src|href)=\"(?!data:|#)", page)
  shown = [
    Image.open(io.BytesIO(base64.b64decode(found)))
    for found in re.findall(r"data:image/png;base64,([^\"]+)", page)
  ]
  assert [p.size for p in shown] == [(160, 80), (160, 53), (160, 80)]
  assert shown[0].getpixel((3, 3)) == RED


def test_the_picture_has_a_place_for_each_example(folder, tmp_path):
  file = tmp_path / "sheet.png"
  main.main(["data", "check", str(folder), f"--sheet={file}", "--examples=4"])
  sheet = np.asarray(Image.open(file))
  width = contact_sheet.SIDE + 2 * contact_sheet.MARGIN
  assert sheet.shape[1] == 4 * width
  assert tuple(sheet[20, 20]) == RED
  assert tuple(sheet[20, 3 * width + 20]) == BLUE
  # Words below each of them; in red where there is a problem.
  for i in range(4):
    words = sheet[contact_sheet.SIDE + 8 :, i * width : (i + 1) * width]
    assert (words.mean(axis=-1) < 128).sum() > 20
    red = (words[..., 0] > 150) & (words[..., 1] < 100)
    assert (red.sum() > 20) == (i == 1)


@pytest.mark.parametrize("flags", [["--sheet=a.pdf"], ["--examples=0"]])
def test_other_files_are_refused(folder, flags, capsys):
  flags = ["--sheet=a.png", *flags]
  assert main.main(["data", "check", str(folder), *flags]) == 2
  assert "expected a file that ends in" in capsys.readouterr().err


def test_a_sheet_that_cannot_be_written_is_told(folder, tmp_path):
  shown = contact_sheet.tiles([{"image": encoded(RED)}], "train", 1)
  with pytest.raises(errors.UserError, match="cannot be written"):
    contact_sheet.write_png(tmp_path / "no" / "sheet.png", shown)
