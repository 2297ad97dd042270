"""Examples of a data set on one page, with their pictures in it."""

import base64
import dataclasses
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from mmjax.report import page


@dataclasses.dataclass(frozen=True)
class Tile:
  """One example."""

  where: str
  pictures: tuple[str, ...]  # Data URIs.
  texts: Mapping[str, str]
  problem: str = ""


def data_uri(pixels: Any) -> str:
  """A uint8 picture, `h w 3`, as a PNG within the page."""
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, "PNG")
  encoded = base64.b64encode(file.getvalue()).decode("ascii")
  return f"data:image/png;base64,{encoded}"


def render(
  title: str, splits: Mapping[str, Sequence[Tile]], summary: str = ""
) -> str:
  """The page, as HTML that needs no other file.

  Args:
    title: names the data set.
    splits: tiles of each split.
    summary: text that stands below, as it is.
  """
  template = page.environment().get_template("contact_sheet.html.j2")
  return template.render(title=title, splits=splits, summary=summary)


def write(file: Path, content: str) -> None:
  """Writes a page.

  Raises:
    ReportError: it cannot be written.
  """
  try:
    file.write_text(content, encoding="utf-8")
  except OSError as e:
    raise page.ReportError(
      f"{str(file)!r} cannot be written: {e.strerror}."
    ) from e
