"""Questions about pictures of one coloured shape: easy-VQA.

Source: Zhou 2019 (github.com/vzhou842/easy-VQA), the package `easy-vqa`, MIT.
4,000 pictures of 64x64 with 38,575 questions to train on, 1,000 with 9,673 to
test; each has one of 13 answers, and three in four are yes or no.
"""

import json
import re
from pathlib import Path
from typing import Any, SupportsIndex

from mmjax.core import errors

# Questions. Those of an "open" split are not answered by yes or no.
SPLITS = {
  "train": 38_575,
  "test": 9_673,
  "train_open": 10_168,
  "test_open": 2_537,
}
OPEN = "_open"
YES_NO = "yes_no"
SHAPES = ("circle", "rectangle", "triangle")
EXPECTED = "answers.txt, and in train/ and test/ questions.json and images/"
# "train", or the first tenth of its questions as "train[:10%]".
SPLIT = re.compile(r"(\w+)(?:\[:(\d+)%\])?")


class EasyVqaSource:
  """One example per question; those of one picture follow each other.

  `image` holds the encoded picture, `question` and `answer` are texts.
  `question_type` is "color", "shape" or "yes_no", and `question_id` and
  `image_id` say which ones these are, as in "test/17".

  Args:
    split: one of `SPLITS`, or the first part of one, as in "test[:20%]".
    path: a folder laid out like the package's data, for pictures of your own
      drawn by the authors' generator; "" = the package's.

  Raises:
    UserError: an unknown split, the package is not installed, or the folder
      is not laid out so.
  """

  splits = SPLITS

  def __init__(self, *, split: str, path: str = ""):
    parsed = SPLIT.fullmatch(split)
    name, percent = parsed.groups() if parsed else (split, None)
    if name not in SPLITS:
      raise errors.unknown("split of easy_vqa", name, SPLITS)
    base = name.removesuffix(OPEN)
    folder = Path(path).expanduser() if path else _package_data()
    try:
      answers = (folder / "answers.txt").read_text("utf-8").split()
      text = (folder / base / "questions.json").read_text("utf-8")
      rows = [
        (k, str(question), str(answer), int(image))
        for k, (question, answer, image) in enumerate(json.loads(text))
      ]
    except (OSError, ValueError, TypeError) as e:
      raise errors.UserError(
        f"No easy-VQA data in {str(folder)!r} ({e}). Expected {EXPECTED}."
      ) from e
    if name != base:
      rows = [row for row in rows if _type(row[2]) != YES_NO]
    self._rows = rows[: len(rows) * int(percent or 100) // 100]
    self._split = base
    self._images = folder / base / "images"
    self.class_names = {"answer": tuple(sorted(answers))}

  def __len__(self) -> int:
    return len(self._rows)

  def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
    index = index.__index__()
    if not 0 <= index < len(self):
      raise IndexError(f"index {index} of {len(self)} examples")
    return {"image": self.picture(index), **self.without_picture(index)}

  def picture(self, index: int) -> bytes:
    """The encoded picture of an example."""
    return (self._images / f"{self._rows[index][3]}.png").read_bytes()

  def without_picture(self, index: int) -> dict[str, Any]:
    """All else of an example: no file is read."""
    number, question, answer, image = self._rows[index]
    return {
      "question": question,
      "answer": answer,
      "question_type": _type(answer),
      "question_id": f"{self._split}/{number}",
      "image_id": f"{self._split}/{image}",
    }


def _type(answer: str) -> str:
  if answer in ("yes", "no"):
    return YES_NO
  return "shape" if answer in SHAPES else "color"


def _package_data() -> Path:
  # Its files are read as they are: its own functions read all at once, and
  # list 4,000 pictures to find one.
  try:
    import easy_vqa
  except ImportError as e:
    raise errors.UserError(
      "The source 'easy_vqa' reads the package easy-vqa, which is not "
      "installed: pip install 'mmjax[examples]'. Or set data.path to a folder "
      f"with {EXPECTED}."
    ) from e
  return Path(easy_vqa.__file__).parent / "data"
