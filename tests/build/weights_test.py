import json

import numpy as np
import pytest

from mmjax.build import (
  checkpoints,
  settings,
  training,
  weights,
)
from mmjax.core import config as config_lib
from mmjax.core import errors, trees
from mmjax.finetune import lora as lora_lib

pytestmark = pytest.mark.slow  # All need runs.
LORA = dict(rank=2, alpha=6.0, targets=(".*/attention/.*", ".*/hidden"))
HEAD = "heads_label/.*"


@pytest.fixture(scope="module")
def make(resolve, tmp_path_factory):
  """`make(edit, steps=n)`: a trained run of the tiny fine-tuning stage."""

  def run(edit, *, seed=0, num_steps=2):
    def change(config):
      config.train = dict(num_steps=num_steps, batch_size=8, seed=seed)
      config.optimizer = dict(peak_lr=0.03)
      config.checkpoint = dict(every_steps=1, keep=4)
      config.finetune = {}
      config.evaluators = dict(
        shapes=dict(name="classification", data=dict(split="test"))
      )
      config.log.evaluate_at_end = False
      edit(config)

    config = resolve("finetune", change)
    workdir = tmp_path_factory.mktemp("run")
    training.Run(config, workdir).execute()
    return config, workdir

  return run


@pytest.fixture(scope="module")
def base(make):
  return make(lambda config: None)


@pytest.fixture(scope="module")
def tuned(make, base):
  """Adapters and a new head on top of the base."""

  def edit(config):
    config.init = dict(
      from_checkpoint=str(base[1]),
      only=("encoders_image/.*",),
      new=(HEAD,),
    )
    config.finetune = dict(lora=dict(LORA), trainable=(HEAD,))
    config.optimizer.ema_decay = 0.5

  return make(edit, seed=1, num_steps=3)


@pytest.fixture(scope="module")
def file(tuned, tmp_path_factory):
  path = tmp_path_factory.mktemp("file") / "lora.safetensors"
  return path, weights.save_lora(*tuned, "latest", path)


def logits_of(apply, batch):
  del batch
  return apply("head", "label", apply("pool", "image"))


def restored(workdir, step="latest"):
  """Parameters as evaluation takes them, and logits of eight pictures."""
  made, _, state = checkpoints.restore(config_of(workdir), workdir, step)
  pixels = np.arange(8 * 32 * 32 * 3).reshape(8, 32, 32, 3) % 251
  logits = made.predictor(
    state.ema_variables, logits_of, {"image": pixels.astype(np.uint8)}
  )
  return trees.flatten(state.ema_variables["params"]), logits


def config_of(workdir):
  values = json.loads((workdir / "config.json").read_text())
  return settings.resolve(config_lib.from_plain(values))


def again(config, path, **init):
  """A config that starts from the file instead of training."""
  other = config_lib.from_plain(config_lib.plain(config))
  with other.unlocked():
    other.init.update(lora=str(path), **init)
    other.train.seed = 5
  return other


def evaluate(workdir):
  config = config_of(workdir)
  return checkpoints.evaluate(config, workdir, "latest", (), pictures=False)


def test_a_file_holds_what_was_trained_and_the_base_is_left_out(tuned, file):
  path, contents = file
  params, _ = restored(tuned[1])

  names = set(contents.arrays)
  assert names == {
    n for n in params if lora_lib.is_adapter(n) or n.startswith("heads_")
  }
  size = sum(params[n].size for n in names)
  assert path.stat().st_size < 4 * size + 8192


def test_base_and_file_give_the_tuned_outputs_bit_for_bit(
  tuned, file, tmp_path
):
  params, logits = restored(tuned[1])

  report = weights.start(again(tuned[0], file[0]), tmp_path / "w")

  found, same = restored(tmp_path / "w")
  assert found.keys() == params.keys()
  for name, array in params.items():
    np.testing.assert_array_equal(found[name], array, err_msg=name)
  np.testing.assert_array_equal(same, logits)
  assert np.ptp(logits) > 0.1  # Not those of a head of zeros.
  assert f"as adapters (from {file[0]})" in report
  # Of query, key, value, out and hidden of one layer, two each.
  assert "10 parameters of adapters are new" in report


def test_a_merged_run_has_no_adapters_and_evaluates_the_same(tuned, tmp_path):
  step = weights.merge(*tuned, "latest", tmp_path / "w")

  assert step == 3
  params, logits = restored(tmp_path / "w")
  assert not any(map(lora_lib.is_adapter, params))
  np.testing.assert_allclose(logits, restored(tuned[1])[1], atol=1e-5)
  (_, ours), (number, theirs) = evaluate(tuned[1]), evaluate(tmp_path / "w")
  assert number == 3
  assert theirs == pytest.approx(ours, abs=1e-5)


def test_a_file_is_merged_into_a_model_without_adapters(tuned, file, tmp_path):
  config = again(tuned[0], file[0])
  with config.unlocked():
    config.finetune = dict(trainable=(HEAD,))

  report = weights.start(settings.resolve(config), tmp_path / "w")

  params, logits = restored(tmp_path / "w")
  assert not any(map(lora_lib.is_adapter, params))
  np.testing.assert_allclose(logits, restored(tuned[1])[1], atol=1e-5)
  assert "merged into kernels" in report


def test_an_average_is_the_mean_of_all_numbers(make, base, tmp_path):
  other = make(lambda config: None, seed=3)

  steps = weights.average(
    [(*base, "latest"), (*other, "latest"), (*base, "1")], tmp_path / "w"
  )

  assert steps == [2, 2, 1]
  arrays = [
    restored(base[1])[0],
    restored(other[1])[0],
    restored(base[1], "1")[0],
  ]
  for name, value in restored(tmp_path / "w")[0].items():
    expected = np.mean(
      [np.asarray(a[name], np.float64) for a in arrays], axis=0
    )
    np.testing.assert_allclose(value, expected, rtol=1e-6, err_msg=name)


def test_a_file_on_another_base_is_refused(tuned, file, base, tmp_path):
  config = again(tuned[0], file[0], step="1")

  with pytest.raises(
    errors.UserError,
    match=rf"fingerprint {file[1].base}, this one has \w{{16}}.*{base[1]}",
  ):
    weights.start(config, tmp_path / "w")
  assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
  ("section", "message"),
  [
    (dict(LORA, rank=4), "rank=2, alpha=6.0; config.finetune.lora has rank=4"),
    (dict(LORA, targets=(".*/hidden",)), r"extra \(\d+\):\n.*attention"),
  ],
)
def test_a_file_of_other_adapters_is_refused(
  tuned, file, section, message, tmp_path
):
  config = again(tuned[0], file[0])
  with config.unlocked():
    config.finetune.lora = section

  with pytest.raises(errors.UserError, match=message):
    weights.start(config, tmp_path / "w")


def test_what_has_no_mean_is_refused(tuned, base, tmp_path):
  out = tmp_path / "w"
  with pytest.raises(errors.UserError, match="has adapters.*Merge each first"):
    weights.average([(*base, "latest"), (*tuned, "latest")], out)
  with pytest.raises(errors.UserError, match="1 checkpoint to average"):
    weights.average([(*base, "latest")], out)
  assert not out.exists()


def test_checkpoints_of_other_trees_have_no_mean(base, make, tmp_path):
  def smaller(config):
    config.model.encoders.image.size.mlp_dim = 16

  other = make(smaller, num_steps=1)

  with pytest.raises(
    errors.UserError, match="has other parameters than(.|\n)*mlp/hidden/kernel"
  ):
    weights.average([(*base, "latest"), (*other, "latest")], tmp_path / "w")


def test_a_workdir_is_not_written_over(base, tuned):
  with pytest.raises(errors.UserError, match="has checkpoints already"):
    weights.merge(*tuned, "latest", base[1])


def test_a_run_without_adapters_has_nothing_to_merge_or_save(base, tmp_path):
  with pytest.raises(errors.UserError, match="no adapters to merge"):
    weights.merge(*base, "latest", tmp_path / "w")
  with pytest.raises(errors.UserError, match="has no adapters"):
    weights.save_lora(*base, "latest", tmp_path / "f")


def test_a_run_with_adapters_starts_others_only_once_merged(
  tuned, resolve, tmp_path
):
  def edit(config):
    config.init = dict(from_checkpoint=str(tuned[1]))
    config.finetune = {}

  with pytest.raises(errors.UserError, match="has adapters.*Merge them first"):
    weights.start(resolve("finetune", edit), tmp_path / "w")


def test_what_is_new_and_stays_so_is_said(base, tuned, tmp_path):
  config = config_lib.from_plain(config_lib.plain(tuned[0]))
  with config.unlocked():
    config.finetune = dict(trainable=("encoders_image/.*",))

  report = weights.start(settings.resolve(config), tmp_path / "w")

  assert (
    "2 parameters are new and frozen, e.g. 'heads_label/logits/bias'" in report
  )
