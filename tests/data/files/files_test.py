"""Whatever form the examples have, they are read alike."""

import json
import pickle
from concurrent import futures

import numpy as np
import pytest

from mmjax.core import errors
from mmjax.data import check, files, open_source, pipeline
from mmjax.data.transforms import image

FORMS = ("folder", "jsonl", "csv", "tsv", "parquet", "tar", "arrow")
CAPTIONS = ("a red square", "blue", "ein grünes Quadrat", "黄", 'x, "y"\nz')


def by_number(source):
  """Examples by their number, which a CSV has as a text."""
  return {int(source[i]["n"]): source[i] for i in range(len(source))}


@pytest.mark.parametrize("form", FORMS)
def test_a_path_is_enough(written, pictures, form):
  source = open_source("files", split="train", path=str(written(form)))
  found = by_number(source)
  assert sorted(found) == list(range(5))
  for i, example in found.items():
    assert example["text"] == CAPTIONS[i]
    assert example["image"] == pictures[i]
    assert (image.decode(example["image"]) == 40 * i).all()


@pytest.mark.parametrize("form", FORMS)
def test_examples_are_the_same_from_many_threads(written, form):
  source = open_source("files", split="train", path=str(written(form)))
  want = [source[i] for i in range(5)]
  order = np.random.default_rng(0).integers(0, 5, 200)
  with futures.ThreadPoolExecutor(8) as pool:
    got = list(pool.map(lambda i: source[i], order))
  assert got == [want[i] for i in order]


@pytest.mark.parametrize("form", FORMS)
def test_a_source_can_be_sent_to_another_process(written, form):
  source = open_source("files", split="train", path=str(written(form)))
  source[0]
  sent = pickle.loads(pickle.dumps(source))
  assert [sent[i] for i in range(5)] == [source[i] for i in range(5)]


@pytest.mark.parametrize("form", FORMS)
def test_another_split_is_refused(written, form):
  with pytest.raises(errors.UserError, match="test"):
    open_source("files", split="test", path=str(written(form)))


@pytest.mark.parametrize("form", ("jsonl", "csv", "tar", "folder"))
def test_the_same_behind_a_url(written, pictures, form):
  import fsspec

  memory = fsspec.filesystem("memory")
  memory.put(str(written(form)), f"/{form}", recursive=True)
  source = open_source("files", split="train", path=f"memory://{form}")
  found = by_number(source)
  assert sorted(found) == list(range(5))
  assert [found[i]["image"] for i in range(5)] == pictures


def test_kinds_are_told_apart(written, tmp_path):
  kinds = {form: files.kind_of(str(written(form)), "train") for form in FORMS}
  assert kinds == dict.fromkeys(FORMS, "manifest") | {
    "folder": "folder",
    "tar": "tar",
    "arrow": "arrow",
  }
  assert files.kind_of("shards-{000..003}.tar") == "tar"
  assert files.kind_of(str(written("csv") / "train.csv")) == "manifest"
  with pytest.raises(errors.UserError, match="Nothing at.*tar shards"):
    files.kind_of(str(tmp_path / "nothing"))


def test_columns_are_for_tables(written):
  with pytest.raises(errors.UserError, match="for tables.*'tar'"):
    files.open_files(
      split="train", path=str(written("tar")), columns={"text": "caption"}
    )


@pytest.mark.parametrize("form", FORMS)
def test_a_pipeline_reads_it(written, form):
  made = pipeline.build_pipeline(
    dict(
      source="files",
      path=str(written(form)),
      image=dict(size=4, crop_scale=(1.0, 1.0)),
      text=dict(tokenizer="starter", max_tokens=24),
    )
  )
  said = {
    made.tokenizer.decode(made.example(i, 0, 0, False)["text"])
    for i in range(len(made))
  }
  assert said == set(CAPTIONS)
  assert {made.example(i, 0, 0, True)["image"].max() for i in range(5)} == {
    0,
    40,
    80,
    120,
    160,
  }


@pytest.mark.parametrize("form", FORMS)
def test_data_check_shows_it(written, form):
  found = check.check(str(written(form)))
  assert found.checked == {"train": 5} and not found.broken
  assert found.fields["image"] == "picture, width x height 6x4"
  assert found.fields["text"].startswith("text, characters 1 to 18")


def test_columns_are_named_in_the_config(written, tmp_path):
  root = written("jsonl")
  rows = [
    {"file": str(root / "img" / f"{i}.png"), "captions": ["one", "two"]}
    for i in range(3)
  ]
  (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
  made = pipeline.build_pipeline(
    dict(
      source="files",
      path=str(tmp_path),
      columns=dict(image="file", text="captions"),
      image=dict(size=4),
      text=dict(tokenizer="starter", field="text", max_tokens=8),
    )
  )
  decode = made.tokenizer.decode
  # Held out it is the first caption; training draws one.
  held_out = {decode(made.example(i, 0, 0, False)["text"]) for i in range(3)}
  drawn = [decode(made.example(0, e, 0, True)["text"]) for e in range(40)]
  assert held_out == {"one"} and set(drawn) == {"one", "two"}
  with pytest.raises(errors.UserError, match="Columns are for"):
    open_source("synthetic", split="train", columns={"text": "x"})
