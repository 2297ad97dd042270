import jax
import numpy as np
import pytest

from mmjax.build import experiment, model
from mmjax.core import errors, trees
from mmjax.objectives.contrastive import Contrastive
from mmjax.train import flops, predict, step


@pytest.fixture(scope="module")
def pretrain(resolve):
  return experiment.prepare(resolve("pretrain"))


def refused(resolve, stage, edit, match):
  with pytest.raises(errors.UserError, match=match):
    experiment.prepare(resolve(stage, edit))


def test_nothing_is_computed_or_placed(pretrain):
  leaves = jax.tree.leaves(pretrain.abstract_state)

  assert leaves
  assert all(isinstance(x, jax.ShapeDtypeStruct) for x in leaves)
  assert all(x.sharding.mesh == pretrain.mesh for x in leaves)


def test_given_devices_are_used(resolve):
  devices = jax.devices()[2:4]

  made = experiment.prepare(resolve("tokenizer"), devices)

  assert list(made.mesh.devices.flat) == devices


def test_frozen_parts_are_not_trained(pretrain):
  total, trained = pretrain.num_params()

  tokenizer = pretrain.abstract_state.params["visual_tokenizer"]
  assert total - trained == trees.num_params(tokenizer)
  names = trees.flatten(pretrain.abstract_state.opt_state)
  assert not any("visual_tokenizer" in name for name in names)


def test_chance_is_the_logarithm_of_how_many_there_are(pretrain):
  vocab_size = pretrain.parts.info.vocab_size

  assert pretrain.chance() == pytest.approx(
    {
      "mlm": np.log(vocab_size),
      "vtp": np.log(16),  # Codes.
      "contrastive": np.log(8),  # Examples of a batch.
    }
  )


def test_batch_keeps_the_fields_that_the_data_declares(pretrain):
  source = pretrain.parts.pipelines["main"]
  example = source.example(0, 0, 0, train=True)
  batch = {
    name: np.stack([np.asarray(value)] * 8) for name, value in example.items()
  }

  placed = pretrain.put({"main": {**batch, "concept": np.array(["a"] * 8)}})

  assert set(placed["main"]) == set(source.specs)
  for name, value in placed["main"].items():
    np.testing.assert_array_equal(value, batch[name])


def test_batch_that_does_not_divide_over_devices_is_refused(resolve):
  def edit(config):
    config.train.batch_size = 12

  refused(
    resolve,
    "tokenizer",
    edit,
    "batch_size=12 does not split over 8 devices.*multiple of 8, e.g. 8 or 16",
  )


def test_mesh_that_does_not_fit_is_refused(resolve):
  def edit(config):
    config.mesh = dict(data=3)

  refused(resolve, "tokenizer", edit, "takes 3 devices, there are 8")


def test_unknown_rules_name_the_nearest(resolve):
  def edit(config):
    config.mesh = dict(rules="data_paralel")

  refused(resolve, "tokenizer", edit, "Did you mean 'data_parallel'")


def accumulate(config):
  config.train.update(accumulate=2, batch_size=16)


def match(config, **fields):
  accumulate(config)
  config.tasks.main.objectives.matching = dict(name="matching", **fields)


def test_micro_batches_of_coupled_examples_are_refused(resolve):
  refused(
    resolve,
    "pretrain",
    match,
    "'matching' couples the examples of a batch.*candidates='micro_batch'",
  )


def test_micro_batches_with_fewer_negatives_are_accepted(resolve):
  def edit(config):
    match(config, candidates="micro_batch")

  made = experiment.prepare(resolve("pretrain", edit))

  assert made.train_step.accumulate == 2


def test_micro_batches_do_as_much_work_as_a_whole_batch(resolve):
  def edit(config):
    config.train.update(batch_size=16)

  whole = experiment.prepare(resolve("pretrain", edit))
  parts = experiment.prepare(resolve("pretrain", accumulate))

  assert parts.train_step.accumulate == 2
  assert parts.flops_per_example == whole.flops_per_example


def test_a_sigmoid_loss_gives_the_shared_space_a_bias(resolve, pretrain):
  def edit(config):
    config.tasks.main.objectives.contrastive.loss = "sigmoid"

  made = experiment.prepare(resolve("pretrain", edit))

  params = made.abstract_state.params["shared_space"]
  assert params["logit_bias"].shape == ()
  assert "logit_bias" not in pretrain.abstract_state.params["shared_space"]
  space = made.parts.model.shared_space
  assert (space.init_scale, space.init_bias) == (10.0, -10.0)


class Asks(Contrastive):
  shared_space = {"init_bias": 2.0}


def test_objectives_agree_on_the_shared_space():
  sigmoid = Contrastive(loss="sigmoid")
  found = model.shared_space_options(
    {"a": sigmoid, "b": sigmoid, "c": Contrastive()}
  )
  assert found == {"init_scale": 10.0, "init_bias": -10.0}
  with pytest.raises(errors.UserError, match="other init_bias: -10.0 and 2.0"):
    model.shared_space_options({"a": sigmoid, "b": Asks()})


def test_target_that_would_be_trained_is_refused(resolve):
  def edit(config):
    config.finetune = {}

  refused(
    resolve,
    "pretrain",
    edit,
    r"'vtp' needs a frozen visual_tokenizer.*'visual_tokenizer/\.\*' to "
    "finetune.frozen",
  )


@pytest.mark.parametrize("group", ["trainable", "frozen"])
def test_pattern_that_matches_nothing_is_refused(resolve, group):
  def edit(config):
    config.finetune = {group: ("encoder_image/.*",)}

  refused(resolve, "finetune", edit, "'encoder_image/.*' matches none")


def test_average_is_kept_if_it_is_asked_for(resolve):
  def edit(config):
    config.optimizer.ema_decay = 0.9

  made = experiment.prepare(resolve("finetune", edit))

  trained = {n for n, t in made.trainable.items() if t}
  assert set(trees.flatten(made.abstract_state.ema)) == trained


@pytest.mark.parametrize(
  "changes", [dict(remat="full"), dict(remat="dots", scan=True)]
)
def test_what_remat_computes_again_costs_nothing(resolve, changes):
  def cost(changes):
    def edit(config):
      config.finetune = {}
      config.model.encoders.image.stack = changes
      config.model.encoders.image.size.num_layers = 3

    return experiment.prepare(resolve("finetune", edit)).flops_per_example

  assert cost(changes) == cost({})


def test_first_step_of_one_device_finds_the_trace_that_was_counted(
  resolve, monkeypatch
):
  traced, call = [], step.TrainStep.__call__

  def count(self, *args):
    traced.append(args)
    return call(self, *args)

  made = experiment.prepare(resolve("finetune"), jax.devices()[:1])
  batches = made.abstract_batches()
  alone = flops.count_flops(made.train_step, made.abstract_state, batches)
  monkeypatch.setattr(step.TrainStep, "__call__", count)

  counted = made.flops_of_steps

  assert counted == {("main",): alone}
  rng, zeros = jax.random.key(0), lambda x: np.zeros(x.shape, x.dtype)
  state = made.abstract_state.replace(rng=None)
  state = jax.tree.map(zeros, state).replace(rng=rng)
  state = jax.device_put(state, made.shardings)
  batch = made.put(jax.tree.map(zeros, batches))
  with predict.placement(made.mesh, made.rules):
    made.step_fn.trace(state, batch)
  assert len(traced) == 1


def test_cost_does_not_depend_on_the_batch(resolve):
  def sized(batch_size):
    def edit(config):
      config.train.batch_size = batch_size

    return experiment.prepare(resolve("finetune", edit)).flops_per_example

  assert sized(8) == sized(16)


def test_a_modality_that_a_task_lacks_costs_nothing(resolve):
  pairs = dict(objectives=dict(mlm=dict(name="masked_lm")))
  words = dict(
    data=dict(image=None),
    objectives=dict(words=dict(name="masked_lm", given=())),
  )

  def cost(*left_out, **tasks):
    def edit(config):
      config.tasks = tasks
      config.model.visual_tokenizer = {}
      config.finetune = {}
      for part in left_out:
        del config.model[part]
      if left_out:
        del config.model.encoders["image"]

    return experiment.prepare(resolve("pretrain", edit)).flops_per_example

  together = cost(pairs=pairs, words=words)
  alone = cost("fusion", "shared_dim", words=words)
  assert alone > 0
  assert together == cost(pairs=pairs) + alone
