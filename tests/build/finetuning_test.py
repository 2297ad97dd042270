import shutil

import jax
import numpy as np
import pytest

from mmjax.build import checkpoints, experiment, training
from mmjax.core import errors, trees
from mmjax.finetune import lora

HEAD = "heads_label/.*"


@pytest.fixture(scope="module")
def finetune(resolve):
  """`finetune(**section)`: the config with another `finetune`, unfrozen."""

  def make(edit=lambda config: None, **section):
    def change(config):
      config.finetune = section
      edit(config)

    return resolve("finetune", change)

  return make


def prepare(config):
  return experiment.prepare(config, jax.devices()[:1])


def trained(made):
  return {name for name, is_trained in made.trainable.items() if is_trained}


def test_with_adapters_these_alone_are_trained_and_have_moments(finetune):
  made = prepare(finetune(lora=dict(rank=2)))

  layer = "encoders_image/stack/layer_00/attention"
  names = {
    f"{layer}/{module}/{x}"
    for module in ("query", "value")
    for x in ("lora_a", "lora_b")
  }
  assert trained(made) == names
  moments = [
    n for n in trees.flatten(made.abstract_state.opt_state) if "mu" in n
  ]
  assert {n.partition("/mu/")[2] for n in moments} == names


def test_trainable_names_what_is_trained_beside_adapters(finetune):
  both = dict(lora=dict(rank=2), trainable=(HEAD,))
  made = prepare(finetune(**both))
  frozen = prepare(
    finetune(**both, frozen=(".*/value/lora_a", "heads_label/logits/bias"))
  )

  others = {n for n in trained(made) if not lora.is_adapter(n)}
  assert others == {"heads_label/logits/kernel", "heads_label/logits/bias"}
  assert {n.split("/")[-2] for n in trained(frozen)} == {"query", "logits"}
  assert "heads_label/logits/bias" not in trained(frozen)


def test_the_moving_average_holds_what_is_trained(finetune):
  def averaged(config):
    config.optimizer.ema_decay = 0.9

  made = prepare(finetune(averaged, lora=dict(rank=2)))

  assert set(trees.flatten(made.abstract_state.ema)) == trained(made)


def test_documented_patterns_choose_what_they_say(finetune):
  names = prepare(finetune()).trainable
  last = r"encoders_image/stack/(layer_00|norm)/.*"

  bias_only = trained(prepare(finetune(trainable=(HEAD, ".*/bias"))))
  last_block = trained(prepare(finetune(trainable=(HEAD, last))))

  assert bias_only == {
    n for n in names if n.endswith("/bias") or n.startswith("heads_label/")
  }
  assert {n.split("/")[1] for n in last_block} == {"logits", "stack"}
  assert "encoders_image/stem/patches/kernel" not in last_block


@pytest.mark.parametrize(
  ("section", "message"),
  [
    (
      dict(lora=dict(targets=(".*/attention/quary",))),
      "finetune.lora.targets: .*Did you mean 'attention/query'",
    ),
    (dict(lora=dict(rank=0)), "config.finetune.lora: rank=0"),
    (dict(lora=dict(rnak=2)), "Unknown key .*lora.rnak.*Did you mean 'rank'"),
    (
      dict(lora=dict(rank=2), frozen=("encoders_image/.*",)),
      "finetune.lora.targets.*frozen has the last word",
    ),
    (dict(unfreeze=((3, "heads_labels/.*"),)), "Did you mean 'heads_label"),
    (dict(layer_decay=1.5), "layer_decay=1.5"),
    (dict(trainable=("heads_labels/.*",)), "Did you mean 'heads_label"),
  ],
)
def test_wrong_sections_are_refused(finetune, section, message):
  with pytest.raises(errors.UserError, match=message):
    prepare(finetune(**section))


# Four tokens of one picture: parameters outweigh activations.
def large(config):
  size = dict(embed_dim=128, num_layers=3, num_heads=2, mlp_dim=512)
  config.model.encoders.image.size = dict(base="Ti", **size)
  config.model.encoders.image.patch_size = 16
  config.train.batch_size = 1


@pytest.mark.slow
def test_frozen_parameters_cost_neither_moments_nor_gradients(finetune):
  beside = dict(trainable=(HEAD,))
  full, adapted = (
    prepare(finetune(large, **section))
    for section in ({}, dict(lora=dict(rank=2), **beside))
  )
  memory = [m.lower_step().compile().memory_analysis() for m in (full, adapted)]

  whole, all_trained = full.num_params()
  assert whole == all_trained
  with_adapters, few = adapted.num_params()
  # float32 parameters, and two moments of what is trained.
  arguments = [m.argument_size_in_bytes for m in memory]
  expected = 4 * (3 * whole) - 4 * (with_adapters + 2 * few)
  assert arguments[0] - arguments[1] == expected
  # And a gradient of each trained parameter: of frozen ones there is none.
  temporary = [m.temp_size_in_bytes for m in memory]
  assert temporary[0] - temporary[1] > 0.9 * 4 * (whole - few)
  assert temporary[1] < 0.5 * 4 * whole


@pytest.fixture(scope="module")
def unfreezing(finetune, tmp_path_factory):
  """A run whose encoder joins after 2 of 4 steps; config and workdir."""

  def short(config):
    config.train.num_steps = 4
    config.checkpoint = dict(every_steps=1, keep=4)
    config.optimizer.warmup_steps = 0

  config = finetune(
    short, unfreeze=((2, ("encoders_image/.*",)),), layer_decay=0.5
  )
  workdir = tmp_path_factory.mktemp("unfreezing")
  training.Run(config, workdir).execute()
  return config, workdir


def params_of(workdir, step):
  source = checkpoints.open_checkpoints(workdir)
  params, _ = source.restore_params(step)
  source.close()
  return trees.flatten(params)


@pytest.mark.slow
def test_a_run_unfreezes_at_its_step(unfreezing):
  _, workdir = unfreezing
  one, two, three = (params_of(workdir, step) for step in (1, 2, 3))

  for name, value in one.items():
    late = name.startswith("encoders_image/")
    assert np.array_equal(value, two[name]) == late, name
  # A patch that is never there has no gradient; kernels do.
  kernels = [n for n in two if n.endswith("/kernel")]
  assert all(not np.array_equal(two[n], three[n]) for n in kernels)


@pytest.mark.slow
def test_a_run_that_was_stopped_before_unfreezes_at_the_same_step(
  unfreezing, tmp_path
):
  config, workdir = unfreezing
  resumed = tmp_path / "resumed"
  (resumed / "checkpoints").mkdir(parents=True)
  for file in ("config.json", "tokenizer.json"):
    if (workdir / file).exists():
      shutil.copy(workdir / file, resumed)
  shutil.copytree(workdir / "checkpoints" / "1", resumed / "checkpoints" / "1")

  training.Run(config, resumed).execute()

  expected = params_of(workdir, 4)
  for name, value in params_of(resumed, 4).items():
    np.testing.assert_array_equal(value, expected[name], err_msg=name)
