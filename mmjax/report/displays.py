"""Turns artifacts into what the templates show, one function per kind.

Data that does not look as its kind promises becomes a sentence on the page.
"""

import base64
import binascii
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mmjax.report import evaluations, formats, heatmap, plots

PNG_START = b"\x89PNG\r\n\x1a\n"
ENLARGED = 1.25  # 64 pixels are shown 80 wide.
SHOWN_WIDTH = (44, 160)  # Of a picture, CSS pixels, at least and at most.
MAX_NAMED_BARS = 24  # More bars stand side by side without their names.


@dataclasses.dataclass(frozen=True)
class Display:
  """An artifact, ready for the template of its kind."""

  artifact: evaluations.Artifact
  content: Mapping[str, Any]
  problem: str = ""  # Why there is no content.


@dataclasses.dataclass(frozen=True)
class Picture:
  """A picture as a data URI; none if `source` is empty."""

  source: str
  width: int = SHOWN_WIDTH[0]


def display_all(
  artifacts: Sequence[evaluations.Artifact],
) -> list[Display]:
  """Makes artifacts ready, pictures first and numbers last."""
  order = list(KINDS)

  def place(artifact):
    known = artifact.kind in KINDS
    return order.index(artifact.kind) if known else len(order)

  return [display(artifact) for artifact in sorted(artifacts, key=place)]


def display(artifact: evaluations.Artifact) -> Display:
  """Makes an artifact ready to be shown, or says why it cannot be."""
  if artifact.kind not in KINDS:
    known = ", ".join(sorted(KINDS))
    return Display(
      artifact,
      {},
      f"Not shown: kind {artifact.kind!r} is unknown. Known: {known}.",
    )
  try:
    return Display(artifact, KINDS[artifact.kind](artifact))
  except (KeyError, TypeError, ValueError, IndexError, AttributeError) as e:
    return Display(
      artifact,
      {},
      f"Not shown: the data does not fit kind {artifact.kind!r} "
      f"({type(e).__name__}: {e}).",
    )


def picture(value: Any) -> Picture:
  """Reads `{"png": base64}`; what is no PNG leaves an empty place."""
  encoded = value.get("png") if isinstance(value, Mapping) else None
  if not isinstance(encoded, str):
    return Picture("")
  try:
    content = base64.b64decode(encoded, validate=True)
  except (binascii.Error, ValueError):
    return Picture("")
  if not content.startswith(PNG_START) or len(content) < 24:
    return Picture("")
  width = int.from_bytes(content[16:20], "big")  # Of the header chunk.
  low, high = SHOWN_WIDTH
  shown = max(low, min(high, round(width * ENLARGED)))
  return Picture(f"data:image/png;base64,{encoded}", shown)


def _pairs(artifact):
  data = artifact.data
  columns = [str(name) for name in data["columns"]]
  captions = data.get("captions") or [""] * len(data["images"])
  examples: list[dict[str, Any]] = []
  for pictures, caption in zip(data["images"], captions, strict=True):
    named = zip(columns, map(picture, pictures), strict=True)
    examples.append({"pictures": list(named), "caption": str(caption)})
  if not examples:
    raise ValueError("no pictures")
  widest = max(p.width for e in examples for _, p in e["pictures"])
  return {
    "examples": examples,
    "width": widest,
    "num_columns": len(columns),
  }


def _gallery(artifact):
  rows: list[dict[str, Any]] = []
  for row in artifact.data["rows"]:
    query, truth = row["query"], str(row.get("truth", ""))
    is_text = isinstance(query, str)
    results = [_result(result) for result in row["results"]]
    right = [i for i, result in enumerate(results, 1) if result["right"]]
    rows.append(
      {
        "text": query if is_text else "",
        "picture": None if is_text else picture(query),
        "truth": "" if truth == query else truth,
        "results": results,
        "rank": right[0] if right else 0,
      }
    )
  if not rows:
    raise ValueError("no queries")
  return {"rows": rows, "num_found": sum(row["rank"] > 0 for row in rows)}


def _result(result):
  score = formats.number(result.get("score"))
  return {
    "picture": picture(result["image"]),
    "caption": str(result.get("caption", "")),
    "score": "" if score is None else f"{score:.2f}",
    "right": bool(result["right"]),
  }


def _masked_text(artifact):
  rows = [_words(row) for row in artifact.data["rows"]]
  hidden = [word for row in rows for word in row if word["hidden"]]
  if not rows:
    raise ValueError("no texts")
  return {
    "rows": rows,
    "num_hidden": len(hidden),
    "num_right": sum(word["right"] for word in hidden),
  }


def _words(row):
  """Tokens that begin a word begin with a space, if any token does."""
  pieces = any(str(token["token"]).startswith(" ") for token in row)
  words = []
  for i, token in enumerate(row):
    true, guess = str(token["token"]), str(token.get("predicted", ""))
    right = bool(token.get("right"))
    if not right and true.strip() == guess.strip():
      true, guess = _with_start(true), _with_start(guess)
    words.append(
      {
        "gap": i > 0 and (true.startswith(" ") or not pieces),
        "token": true.strip(" "),
        "hidden": bool(token["hidden"]),
        "predicted": guess.strip(" ") or "nothing",
        "right": right,
      }
    )
  return words


def _with_start(token):
  """Tells a piece inside of a word from the word of the same letters."""
  return token if token.startswith(" ") else f"…{token}"


def _matrix(artifact):
  data = artifact.data
  values = [[_float(v) for v in row] for row in data["values"]]
  rows = [str(name) for name in data["row_names"]]
  columns = [str(name) for name in data["column_names"]]
  fits = len(values) == len(rows) and all(
    len(row) == len(columns) for row in values
  )
  if not fits or not rows or not columns:
    raise ValueError(f"{len(rows)} x {len(columns)} names for other values")
  size = max(len(rows), len(columns))
  return {
    "heatmap": heatmap.layout(values, rows, columns),
    "confused": heatmap.most_confused(values, rows) if rows == columns else [],
    "left_out": max(0, size - heatmap.MAX_ROWS),
  }


def _bars(artifact):
  names = [str(name) for name in artifact.data["names"]]
  values = [_float(value) for value in artifact.data["values"]]
  if len(names) != len(values) or not values:
    raise ValueError(f"{len(names)} names for {len(values)} values")
  finite = [v for v in values if math.isfinite(v)]
  heights = [v if math.isfinite(v) else 0.0 for v in values]
  top = max(range(len(values)), key=lambda i: (heights[i], -i))
  high = max(heights[top], 0.0) or 1.0
  named = [
    (name, formats.decimal(value), round(100 * max(height, 0.0) / high, 1))
    for name, value, height in zip(names, values, heights, strict=True)
  ]
  return {
    "named": named if len(values) <= MAX_NAMED_BARS else [],
    "plot": plots.bar_plot(artifact.title, values),
    "facts": [
      ("bars", formats.decimal(len(values))),
      ("above zero", formats.decimal(sum(v > 0 for v in finite))),
      ("zero", formats.decimal(sum(v == 0 for v in finite))),
      ("highest", f"{formats.decimal(values[top])}, named {names[top]}"),
      ("sum", formats.decimal(sum(finite))),
    ],
  }


def _table(artifact):
  columns = [str(name) for name in artifact.data["columns"]]
  rows = [[str(cell) for cell in row] for row in artifact.data["rows"]]
  if not rows or any(len(row) != len(columns) for row in rows):
    raise ValueError(f"{len(columns)} columns for other rows")
  return {"columns": columns, "rows": rows}


def _float(value):
  read = formats.number(value)
  return math.nan if read is None else read


# In the order of the page.
KINDS: Mapping[str, Callable[[evaluations.Artifact], Mapping[str, Any]]] = {
  "pairs": _pairs,
  "masked_text": _masked_text,
  "gallery": _gallery,
  "table": _table,
  "matrix": _matrix,
  "bars": _bars,
}
