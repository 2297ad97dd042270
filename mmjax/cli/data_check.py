"""Shows what is in a data set: counts, shapes, examples, what is broken.

mmjax data check starter_emoji --split=train --sheet=emoji.html
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmjax.cli import arguments
from mmjax.cli.arguments import Flag
from mmjax.core import errors

FLAGS = (
  Flag("split", "", "split to look at; default: all"),
  Flag("tokenizer", "starter", "file of the text tokenizer to try"),
  Flag("sheet", "", "file to write pictures to: .html (any script) or .png"),
  Flag("examples", 24, "examples of a split on the sheet"),
)
SHEETS = (".html", ".png")


def main(argv: Sequence[str]) -> int:
  """Runs the verb."""
  paths = [a for a in argv if not a.startswith("-")]
  rest = [a for a in argv if a.startswith("-")]
  flags = arguments.parse(__doc__, FLAGS, rest)
  if len(paths) != 1:
    raise errors.UserError(
      f"Expected one data set, got {paths}. E.g. "
      "`mmjax data check starter_emoji`, or the path of prepared data."
    )
  sheet = Path(flags.sheet).expanduser()
  if flags.sheet and (sheet.suffix not in SHEETS or flags.examples < 1):
    raise errors.UserError(
      f"--sheet={flags.sheet!r} with --examples={flags.examples}: expected a "
      f"file that ends in one of {list(SHEETS)}, and at least one example."
    )
  from mmjax.build import datasets

  result, text = datasets.check(paths[0], flags.split, flags.tokenizer)
  print(text)
  if flags.sheet:
    tiles = datasets.tiles(paths[0], result, flags.examples)
    _write(sheet, paths[0], tiles, text)
    print(f"Sheet   {sheet}")
  return 2 if result.broken else 0


def _write(file: Path, title: str, splits: dict[str, Any], text: str) -> None:
  """Writes tiles of each split to a page or a picture."""
  if file.suffix == ".png":
    from mmjax.build import datasets

    datasets.write_png(file, splits)
    return
  from mmjax.report import contact_sheet, page

  shown = {
    split: [
      contact_sheet.Tile(
        tile.where,
        tuple(map(contact_sheet.data_uri, tile.pictures)),
        tile.texts,
        tile.problem,
      )
      for tile in tiles
    ]
    for split, tiles in splits.items()
  }
  try:
    contact_sheet.write(file, contact_sheet.render(title, shown, text))
  except page.ReportError as e:
    raise errors.UserError(str(e)) from e
