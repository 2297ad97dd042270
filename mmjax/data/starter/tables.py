"""Reads the tables of the starter set and says which item is in which split.

Splits, fixed so that figures compare:
  emoji   A concept is held out, for every artist, when the SHA-256 of its name,
          as a number, is divisible by 10; `fluent3d` is never trained on.
          train                         noto and twemoji, seen concepts
          unseen_artist                 fluent3d, seen concepts (1,686)
          unseen_concept                fluent3d, held-out concepts (166)
          unseen_concept_train_artists  noto and twemoji, held-out concepts
  clips, speech   `test` by the same rule on the key, else `train`.
"""

import csv
import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mmjax.core import errors

FOLDER = Path(__file__).resolve().parent
TABLES = ("emoji", "clips", "speech")
TRAIN_ARTISTS = ("noto", "twemoji")
TEST_ARTIST = "fluent3d"
SPLITS = {
  "emoji": (
    "train",
    "unseen_artist",
    "unseen_concept",
    "unseen_concept_train_artists",
  ),
  "clips": ("train", "test"),
  "speech": ("train", "test"),
}


@dataclass(frozen=True)
class Item:
  """One picture, clip or recording, before its bytes are read."""

  key: str  # Unique within the table.
  file: str  # Member of the table's archive.
  fields: dict[str, str]  # Text columns of the record.


def held_out(key: str) -> bool:
  """Says whether a concept, clip or recording is kept from training."""
  return int(hashlib.sha256(key.encode()).hexdigest(), 16) % 10 == 0


@functools.cache
def rows(table: str) -> tuple[dict[str, str], ...]:
  """Returns the lines of a table, as column -> text.

  Raises:
    UserError: unknown table.
  """
  if table not in TABLES:
    raise errors.unknown("starter table", table, TABLES)
  path = FOLDER / f"{table}.tsv"
  with path.open(encoding="utf-8", newline="") as file:
    reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
    return tuple(reader)


def archive(table: str) -> Path:
  """Returns the path of the zip file with a table's items."""
  return FOLDER / f"{table}.zip"


def tokenizer_path() -> Path:
  """Returns the path of the text tokenizer trained on `texts`."""
  return FOLDER / "tokenizer.json"


def items(table: str, split: str) -> list[Item]:
  """Lists the items of a split, in the order of the table.

  Raises:
    UserError: unknown table or split.
  """
  rows(table)
  if split not in SPLITS[table]:
    raise errors.unknown(f"split of starter_{table}", split, SPLITS[table])
  listing = {"emoji": _emoji, "clips": _clips, "speech": _speech}[table]
  return [item for where, item in listing() if where == split]


def _emoji() -> Iterator[tuple[str, Item]]:
  for row in rows("emoji"):
    text = {name: value for name, value in row.items() if name != "artists"}
    for artist in row["artists"].split(","):
      unseen = held_out(row["concept"])
      if artist == TEST_ARTIST:
        split = "unseen_concept" if unseen else "unseen_artist"
      else:
        split = "unseen_concept_train_artists" if unseen else "train"
      key = f"{artist}/{row['concept']}"
      yield split, Item(key, f"{key}.webp", {**text, "artist": artist})


def _clips() -> Iterator[tuple[str, Item]]:
  for row in rows("clips"):
    key = row["concept"]
    yield _by_key(key), Item(key, f"{key}.webp", row)


def _speech() -> Iterator[tuple[str, Item]]:
  for row in rows("speech"):
    key = row["clip"]
    yield _by_key(key), Item(key, f"{key}.ogg", row)


def _by_key(key: str) -> str:
  return "test" if held_out(key) else "train"


@functools.cache
def class_names(field: str, table: str = "emoji") -> tuple[str, ...]:
  """Returns the values of a column, sorted: their indices are the classes.

  Raises:
    UserError: unknown table or column.
  """
  if table == "emoji" and field == "artist":
    return tuple(sorted((*TRAIN_ARTISTS, TEST_ARTIST)))
  columns = list(rows(table)[0])
  if field not in columns:
    raise errors.unknown(f"column of starter_{table}", field, columns)
  return tuple(sorted({row[field] for row in rows(table)}))


def texts() -> list[str]:
  """Lists the training texts that the starter tokenizer is trained on.

  One text for each label, tag and transcript in every language, of what the
  `train` splits hold; nothing of a held-out concept, clip or recording.
  """
  found = []
  for table in TABLES:
    seen = set()
    for item in items(table, "train"):
      # Both artists of a concept carry the same words: count them once.
      key = item.fields.get("concept", item.key)
      if key in seen:
        continue
      seen.add(key)
      for column, value in item.fields.items():
        if column.startswith(("label_", "transcript_")):
          found.append(value)
        elif column.startswith("tags_"):
          found.extend(value.split("|"))
  return found
