"""Wrong input: status 2, one message, before step 1, and nothing changed."""

import json
import textwrap

import jax
import jax.numpy as jnp
import pytest

from mmjax.cli import arguments
from mmjax.train import checkpoint


@pytest.fixture
def train(refused, tiny, tmp_path):
  """`train(stage, *flags)` expects a refusal that leaves no workdir."""

  def run(stage, *flags):
    workdir = tmp_path / "workdir"
    message = refused("train", tiny(stage), f"--workdir={workdir}", *flags)
    assert not workdir.exists()
    return message

  return run


@pytest.fixture
def edited(tiny, tmp_path):
  """`edited(stage, code)`: a config that changes a tiny one by `code`."""

  def write(stage, code):
    address = tiny(stage).partition("=")[2]
    (tmp_path / "edited.py").write_text(
      "from mmjax.core import config as config_lib\n\n"
      "def get_config():\n"
      f"  c = config_lib.load({address!r})\n"
      f"{textwrap.indent(textwrap.dedent(code).strip(), '  ')}\n"
      "  return c\n"
    )
    return f"--config={tmp_path / 'edited.py'}"

  return write


@pytest.fixture
def train_edited(refused, edited, tmp_path):
  def run(stage, code):
    workdir = tmp_path / "workdir"
    message = refused("train", edited(stage, code), f"--workdir={workdir}")
    assert not workdir.exists()
    return message

  return run


def test_missing_config_file_names_the_nearest(refused, tmp_path):
  (tmp_path / "pretrain.py").write_text("")

  message = refused(
    "train", f"--config={tmp_path}/pretrian.py", f"--workdir={tmp_path}/w"
  )

  assert "No config file at" in message
  assert "Did you mean 'pretrain.py'" in message


def test_missing_workdir_shows_how_it_is_called(refused, tiny):
  message = refused("train", tiny("tokenizer"))

  assert "--workdir is missing" in message
  assert "mmjax train --config=" in message


@pytest.mark.parametrize(
  ("stage", "flag", "near"),
  [
    ("tokenizer", "--config.train.num_step=3", "num_steps"),
    ("tokenizer", "--config.optimiser.peak_lr=3", "optimizer"),
    (
      "pretrain",
      "--config.tasks.main.objectives.mlm.name=masked_ml",
      "masked_lm",
    ),
    ("finetune", "--config.data.label.field=grup", "group"),
    ("finetune", "--config.data.source=synthetik", "synthetic"),
    ("finetune", "--config.data.split=tran", "train"),
    (
      "pretrain",
      "--config.tasks.main.objectives.mlm.given=('imagee',)",
      "image",
    ),
    ("tokenizer", "--config.mesh.rules=fsdp_tensors", "fsdp_tensor"),
    ("tokenizer", "--config.optimizer.schedule=cosin", "cosine"),
    ("pretrain", "--config.model.precision=float23", "float32"),
    ("pretrain", "--config.data.image.mask.strategy=randm", "random"),
  ],
)
def test_unknown_name_in_a_flag_says_the_nearest(train, stage, flag, near):
  assert f"Did you mean '{near}'" in train(stage, flag)


@pytest.mark.parametrize(
  ("code", "near"),
  [
    ("c.optimizer.peek_lr = 1.0", "peak_lr"),
    ("c.optimiser = dict(peak_lr=1.0)", "optimizer"),
    ("c.model.encoders.image.patch_sise = 8", "patch_size"),
    ("c.data.image.crop_scal = (0.5, 1.0)", "crop_scale"),
    ("c.checkpoint.every_step = 5", "every_steps"),
    ("c.evaluators = dict(a=dict(name='classificatoin'))", "classification"),
    ("c.evaluators = dict(a=dict(name='loss', evry_steps=1))", "every_steps"),
    ("c.tasks.main.objectives.label.labl = 'label'", "label"),
  ],
)
def test_unknown_name_in_a_file_says_the_nearest(train_edited, code, near):
  assert f"Did you mean '{near}'" in train_edited("finetune", code)


def test_batch_that_does_not_divide_says_what_would(train):
  message = train("tokenizer", "--config.train.batch_size=20")

  assert "train.batch_size=20 does not split over 8 devices" in message
  assert "16 or 24" in message


def test_shape_of_the_data_that_is_not_the_models_says_both(train_edited):
  message = train_edited("finetune", "c.model.encoders.image.image_size = 64")

  assert "config.model.encoders.image.image_size=64" in message
  assert "the data has 32" in message


def test_dtype_of_the_data_that_is_not_the_objectives_says_both(
  train_edited, tmp_path
):
  (tmp_path / "wants_floats.py").write_text(
    textwrap.dedent("""
      import dataclasses
      from mmjax.core.batch import FieldSpec
      from mmjax.objectives.classification import Classification

      @dataclasses.dataclass(frozen=True, kw_only=True)
      class Floats(Classification):
        def fields(self, info):
          return {"image": FieldSpec((None, None, 3), "float32")}
    """)
  )

  message = train_edited(
    "finetune", "c.tasks.main.objectives.label.name = 'wants_floats:Floats'"
  )

  assert "expects 'image' as float32[b, ?, ?, 3]" in message
  assert "has uint8[b, 32, 32, 3]" in message


def test_patches_that_do_not_tile_the_picture_are_refused(train):
  message = train("finetune", "--config.model.encoders.image.patch_size=7")

  assert "image_size=32 is no multiple of patch_size=7" in message


def test_field_that_the_data_lacks_is_named(train_edited):
  message = train_edited("pretrain", "del c.data.text.mask")

  assert "'mlm' reads the field 'text_masked'" in message
  assert "It has ['image'" in message


def test_missing_data_says_what_was_expected_there(train, tmp_path):
  message = train(
    "tokenizer",
    "--config.data.source=tfds:flowers",
    f"--config.data.path={tmp_path}/none",
  )

  assert f"No folder at '{tmp_path}/none'" in message
  assert "dataset_info.json and *.array_record* files" in message


def test_unreadable_data_is_named(train, tmp_path):
  folder = tmp_path / "flowers" / "1.0.0"
  folder.mkdir(parents=True)
  (folder / "dataset_info.json").write_text("{")

  message = train(
    "tokenizer",
    "--config.data.source=tfds:flowers",
    f"--config.data.path={tmp_path}",
  )

  assert f"{str(folder)!r} is not a TFDS data set that can be read" in message


def test_missing_tokenizer_says_what_was_expected(train, tmp_path):
  message = train(
    "pretrain", f"--config.data.text.tokenizer={tmp_path}/tok.json"
  )

  assert f"No tokenizer at '{tmp_path}/tok.json'" in message
  assert "'starter'" in message


def test_missing_run_to_start_from_says_what_was_expected(train, tmp_path):
  message = train("tokenizer", f"--config.init.from_checkpoint={tmp_path}/none")

  assert f"No run in '{tmp_path}/none'" in message
  assert "config.json and checkpoints/" in message


@pytest.mark.parametrize("verb", ["evaluate", "report"])
def test_folder_without_a_run_is_refused(refused, tmp_path, verb):
  message = refused(verb, f"--workdir={tmp_path}")

  assert str(tmp_path) in message
  assert list(tmp_path.iterdir()) == []


def files(folder):
  return {
    p.relative_to(folder).as_posix(): p.read_bytes()
    for p in folder.rglob("*")
    if p.is_file()
  }


@pytest.fixture
def workdir(tiny, tmp_path):
  """A workdir that a run of the tokenizer's config left, as far as seen."""
  folder = tmp_path / "run"
  (folder / "checkpoints").mkdir(parents=True)
  config = arguments.load_config(tiny("tokenizer").partition("=")[2], [])
  (folder / "config.json").write_text(json.dumps(config.to_dict()))
  source = checkpoint.Checkpointer(folder / "checkpoints")
  kernel = {"visual_tokenizer": {"pixels": {"kernel": jnp.zeros((3, 3))}}}
  source.save(
    5,
    {
      "step": jnp.asarray(5),
      "params": {**kernel, "old": jnp.zeros(2)},
      "rng": jax.random.key(0),
    },
    {},
  )
  source.close()
  return folder


def test_workdir_of_another_config_is_refused_with_what_changed(
  refused, tiny, workdir
):
  before = files(workdir)

  message = refused(
    "train",
    tiny("tokenizer"),
    f"--workdir={workdir}",
    "--config.optimizer.peak_lr=0.5",
    "--config.train.batch_size=16",
  )

  assert "optimizer.peak_lr: 0.003 -> 0.5" in message
  assert "train.batch_size: 8 -> 16" in message
  assert files(workdir) == before


def test_checkpoint_of_another_tree_is_refused_with_lists(
  refused, tiny, workdir
):
  before = files(workdir)

  message = refused("train", tiny("tokenizer"), f"--workdir={workdir}")

  assert "missing (" in message
  assert (
    "params/visual_tokenizer/decoder/layer_00/attention/key/bias" in message
  )
  assert "extra (1):\n    params/old" in message
  assert "kernel: expected (16, 192), got (3, 3)" in message
  assert files(workdir) == before


def test_unknown_step_is_refused(refused, workdir):
  message = refused("evaluate", f"--workdir={workdir}", "--step=newest")

  assert "step='newest', expected latest, best or a number" in message


def test_inspect_refuses_like_train(refused, tiny):
  message = refused(
    "inspect", tiny("tokenizer"), "--config.train.batch_size=20"
  )

  assert "does not split over 8 devices" in message


def test_data_check_of_nothing_says_what_was_expected(refused):
  message = refused("data", "check", "starter_emojy")

  assert "Did you mean 'starter_emoji'" in message


def test_data_check_without_a_data_set_shows_an_example(refused):
  assert "mmjax data check starter_emoji" in refused("data", "check")


def test_tokenizer_of_a_missing_file_is_refused(refused, tmp_path):
  message = refused(
    "tokenizer",
    "train",
    f"--source={tmp_path}/none.txt",
    f"--out={tmp_path}/tok.json",
  )

  assert "No file at" in message and "one text a line" in message
  assert list(tmp_path.iterdir()) == []
