"""The starter set: real pictures, clips and speech with words, 15 MB.

The embedded default of mmjax: `<table>.tsv` says what there is, `<table>.zip`
holds the files, `tokenizer.json` is a text tokenizer trained on its texts.
README.md in this folder tells where each part comes from and its licence.
Nothing here knows TFDS; `mmjax.data.builders` turns the tables into
ArrayRecord.
"""

from mmjax.data.starter.tables import (
  SPLITS,
  TABLES,
  Item,
  archive,
  class_names,
  held_out,
  items,
  rows,
  texts,
  tokenizer_path,
)

__all__ = [
  "SPLITS",
  "TABLES",
  "Item",
  "archive",
  "class_names",
  "held_out",
  "items",
  "rows",
  "texts",
  "tokenizer_path",
]
