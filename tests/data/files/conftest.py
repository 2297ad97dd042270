"""The same five examples in every form that is read."""

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

CAPTIONS = ("a red square", "blue", "ein grünes Quadrat", "黄", 'x, "y"\nz')


def png(i):
  """A picture of one colour, its number."""
  file = io.BytesIO()
  Image.fromarray(np.full((4, 6, 3), 40 * i, np.uint8)).save(file, "PNG")
  return file.getvalue()


@pytest.fixture(scope="session")
def pictures():
  return [png(i) for i in range(len(CAPTIONS))]


def _folder(root, pictures):
  for i, (picture, caption) in enumerate(zip(pictures, CAPTIONS, strict=True)):
    where = root / "train" / ("cat" if i % 2 else "dog")
    where.mkdir(parents=True, exist_ok=True)
    (where / f"{i:03d}.PNG").write_bytes(picture)
    (where / f"{i:03d}.json").write_text(json.dumps({"text": caption, "n": i}))
  (root / "train" / "readme.md").write_text("not data")
  return root


def _write_files(root, pictures):
  (root / "img").mkdir(parents=True)
  for i, picture in enumerate(pictures):
    (root / "img" / f"{i}.png").write_bytes(picture)


def _jsonl(root, pictures):
  _write_files(root, pictures)
  rows = [
    json.dumps({"image": f"img/{i}.png", "text": caption, "n": i})
    for i, caption in enumerate(CAPTIONS)
  ]
  (root / "train.jsonl").write_text("\n\n".join(rows), "utf-8")
  return root


def _csv(root, pictures, ending="csv", delimiter=","):
  _write_files(root, pictures)
  import csv

  with (root / f"train.{ending}").open("w", newline="", encoding="utf-8") as f:
    writer = csv.writer(f, delimiter=delimiter)
    writer.writerow(["image", "text", "n"])
    for i, caption in enumerate(CAPTIONS):
      writer.writerow([f"img/{i}.png", caption, i])
  return root


def _parquet(root, pictures):
  import pyarrow as pa
  import pyarrow.parquet as pq

  table = pa.table(
    {
      "image": [{"bytes": p, "path": None} for p in pictures],
      "text": list(CAPTIONS),
      "n": list(range(len(CAPTIONS))),
    }
  )
  root.mkdir(parents=True)
  pq.write_table(table, root / "train.parquet", row_group_size=2)
  return root


def _tar(root, pictures):
  root.mkdir(parents=True)
  for shard, rows in enumerate(([0, 1], [2, 3, 4])):
    with tarfile.open(root / f"train-{shard:04d}.tar", "w") as tar:
      for i in rows:
        # The last name is too long for a header.
        key = f"{i:04d}" if i < 4 else "deep/" * 30 + f"{i:04d}"
        sidecar = json.dumps({"text": CAPTIONS[i], "n": i}).encode()
        for ending, content in (("png", pictures[i]), ("json", sidecar)):
          info = tarfile.TarInfo(f"{key}.{ending}")
          info.size = len(content)
          tar.addfile(info, io.BytesIO(content))
  return root


def _arrow(root, pictures):
  import pyarrow as pa

  folder = root / "train"
  folder.mkdir(parents=True)
  files = []
  for number, rows in enumerate(([0, 1, 2], [3, 4])):
    table = pa.table(
      {
        "image": [{"bytes": pictures[i], "path": "x.png"} for i in rows],
        "text": [CAPTIONS[i] for i in rows],
        "n": list(rows),
        "kind": [i % 2 for i in rows],
      }
    )
    files.append({"filename": f"data-{number:05d}.arrow"})
    with pa.OSFile(str(folder / files[-1]["filename"]), "wb") as sink:
      with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=1)
  features = {"kind": {"names": ["even", "odd"], "_type": "ClassLabel"}}
  (folder / "state.json").write_text(json.dumps({"_data_files": files}))
  (folder / "dataset_info.json").write_text(json.dumps({"features": features}))
  (root / "dataset_dict.json").write_text(json.dumps({"splits": ["train"]}))
  return root


WRITERS = {
  "folder": _folder,
  "jsonl": _jsonl,
  "csv": _csv,
  "tsv": lambda root, pictures: _csv(root, pictures, "tsv", "\t"),
  "parquet": _parquet,
  "tar": _tar,
  "arrow": _arrow,
}


@pytest.fixture(scope="session")
def written(pictures, tmp_path_factory):
  """`written(form)`: a folder with the five examples, written once."""
  made = {}

  def write(form):
    if form not in made:
      root = tmp_path_factory.mktemp(form) / "data"
      made[form] = WRITERS[form](root, pictures)
    return made[form]

  return write
