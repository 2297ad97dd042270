"""A stranger's files: prepare, check, train by the starter's recipe."""

import io
import json
from pathlib import Path

import numpy as np
import pytest

from mmjax.cli import arguments, main
from mmjax.core import errors
from mmjax.data import open_source, pipeline

CONFIG = Path(__file__).resolve().parents[3] / "configs/starter/pretrain.py"
TINY = dict(embed_dim=16, num_layers=1, num_heads=2, mlp_dim=32)
PARTS = ("encoders.image", "encoders.text", "fusion")
SMALL = [
  *(
    f"--config.model.{part}.size.{name}={value}"
    for part in PARTS
    for name, value in TINY.items()
  ),
  "--config.model.shared_dim=16",
  "--config.model.precision=float32",
  "--config.data.image.size=16",
  "--config.data.image.mask.patch_size=8",
  "--config.train.num_steps=2",
  "--config.train.batch_size=8",
  "--config.log.tensorboard=false",
]
KINDS = {
  "folder": "folder",
  "jsonl": "manifest",
  "csv": "manifest",
  "tsv": "manifest",
  "parquet": "manifest",
  "tar": "tar",
  "arrow": "arrow",
}


@pytest.fixture(scope="module")
def tfds_set(pictures, tmp_path_factory):
  """A data set of TFDS, written without TensorFlow."""
  import tensorflow_datasets as tfds

  class Pets(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
      features = dict(image=tfds.features.Image(), text=tfds.features.Text())
      return self.dataset_info_from_configs(
        features=tfds.features.FeaturesDict(features)
      )

    def _split_generators(self, dl_manager):
      return {"train": self._generate_examples()}

    def _generate_examples(self):
      for i, picture in enumerate(pictures):
        yield i, {"image": io.BytesIO(picture), "text": f"picture {i}"}

  root = tmp_path_factory.mktemp("tfds")
  builder = Pets(data_dir=str(root), file_format="array_record")
  builder.download_and_prepare()
  return root


def prepared(spec, out, *flags):
  arguments_of = ["data", "prepare", f"--source={spec}", f"--out={out}", *flags]
  assert main.main(arguments_of) == 0
  assert main.main(["data", "check", str(out)]) == 0


def loaded(*overrides, arg=""):
  return arguments.load_config(f"{CONFIG}{arg}", [*SMALL, *overrides])


@pytest.mark.parametrize("form", [*KINDS, "tfds"])
def test_what_was_prepared_of_any_form_fits_the_starter_recipe(
  request, written, pictures, form, tmp_path
):
  if form == "tfds":
    root = request.getfixturevalue("tfds_set")
    prepared("tfds:pets", tmp_path, f"--data_dir={root}")
  else:
    prepared(f"{KINDS[form]}:{written(form)}", tmp_path)
  config = loaded(f"--config.data.path={tmp_path}")
  made = pipeline.build_pipeline(config.data.to_dict())
  assert len(made) == 5
  assert {"image", "image_second", "text_masked"} <= set(made.specs)
  seen = {made.example(i, 0, 0, True)["image"].tobytes() for i in range(5)}
  assert len(seen) == 5


def test_the_recipe_keeps_no_more_of_the_starter_set_than_fits(written):
  path = str(written("jsonl"))
  config = loaded(
    f"--config.data.path={path}", "--config.evaluators.loss.every_steps=7"
  )
  assert config.data.source == "files"
  assert set(config.tasks.main.objectives) == {"mlm", "contrastive", "pictures"}
  assert not config.init.from_checkpoint and not config.model.visual_tokenizer
  assert config.evaluators.loss.every_steps == 7
  assert {e.data.split for e in config.evaluators.values()} == {"train"}
  held_out = loaded(f"--config.data.path={path}", arg=":test")
  assert {e.data.split for e in held_out.evaluators.values()} == {"test"}
  # A tokenizer of one's own is kept, and so is the starter set as it was.
  own = loaded(
    f"--config.data.path={path}", "--config.init.from_checkpoint=mine"
  )
  assert "vtp" in own.tasks.main.objectives and own.model.visual_tokenizer
  starter = loaded()
  assert starter.data.source == "starter_emoji"
  assert "probe" in starter.evaluators
  with pytest.raises(errors.UserError, match="'config.evaluators.los'"):
    loaded("--config.evaluators.los.every_steps=7")


@pytest.mark.slow
def test_a_folder_is_prepared_checked_and_trained_on(written, tmp_path):
  data, workdir = tmp_path / "data", tmp_path / "run"
  prepared(f"folder:{written('folder')}", data)
  flags = [f"--config={CONFIG}", f"--workdir={workdir}", *SMALL]
  assert main.main(["train", *flags, f"--config.data.path={data}"]) == 0
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  (found,) = (row for row in rows if row["kind"] == "eval")
  losses = [v for k, v in found.items() if k.endswith("/loss")]
  assert losses and np.isfinite(losses).all()
  # Goes on by what the workdir holds: the recipe as it was adapted.
  assert main.main(["evaluate", f"--workdir={workdir}"]) == 0


LABELLED = (
  {"label": "cat", "n": 0},
  {"label": "dog", "n": 10},
  {"label": "ant", "n": 2},
  {"n": 1},
)


def write(root, split, rows):
  root.mkdir(exist_ok=True)
  lines = "\n".join(map(json.dumps, rows))
  (root / f"{split}.jsonl").write_text(lines + "\n{broken\n")


def labels(path, split="train", **section):
  return pipeline.build_pipeline(
    dict(
      source="files",
      path=str(path),
      split=split,
      label=section,
      max_bad_fraction=1.0,
    )
  )


def test_classes_of_a_table_are_its_distinct_texts(tmp_path):
  root = tmp_path / "pets"
  write(root, "train", LABELLED[:3])
  write(root, "test", LABELLED[1:2])
  made = labels(root, field="label")
  assert made.class_names == ("ant", "cat", "dog")
  assert [int(made.example(i, 0, 0, True)["label"]) for i in range(3)] == [
    *(1, 2, 0)
  ]
  # Another split numbers them alike, prepared or not.
  test = labels(root, "test", field="label")
  assert int(test.example(0, 0, 0, True)["label"]) == 2
  out = tmp_path / "out"
  for split in ("test", "train"):
    assert (
      main.main(
        [
          *("data", "prepare", f"--source={root}"),
          *(f"--out={out}", f"--split={split}"),
        ]
      )
      == 0
    )
  assert open_source("files", split="test", path=str(out)).class_names == {
    "label": ("ant", "cat", "dog")
  }


def test_numbers_need_names_or_how_many(tmp_path):
  write(tmp_path, "train", LABELLED[:3])
  with pytest.raises(errors.UserError, match="label.num_classes"):
    labels(tmp_path, field="n")
  made = labels(tmp_path, field="n", num_classes=11)
  assert int(made.example(1, 0, 0, True)["label"]) == 10
  assert made.class_names == tuple(map(str, range(11)))
  with pytest.raises(errors.UserError, match="or else their names"):
    labels(tmp_path, field="n", num_classes=2, names=("a", "b"))
  with pytest.raises(errors.UserError, match="does not say which"):
    labels(tmp_path, field="kind")


def test_several_classes_of_a_cell_are_told_apart(tmp_path):
  rows = [{"tags": "red|dog"}, {"tags": "blue"}]
  write(tmp_path, "train", rows)
  made = labels(tmp_path, field="tags", multi_label=True)
  assert made.class_names == ("blue", "dog", "red")
  np.testing.assert_array_equal(made.example(0, 0, 0, True)["label"], [0, 1, 1])


@pytest.mark.parametrize("form", ("csv", "parquet"))
def test_numbers_in_texts_are_sorted_by_value(written, form):
  source = open_source("files", split="train", path=str(written(form)))
  if form == "csv":
    assert source.find_classes("n") == ("0", "1", "2", "3", "4")
  else:
    with pytest.raises(errors.UserError, match="holds 0, a int"):
      source.find_classes("n")
  assert len(source.find_classes("text")) == 5
  assert source.find_classes("nothing") == ()
