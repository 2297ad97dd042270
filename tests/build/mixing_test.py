import numpy as np
import pytest

from mmjax.build import experiment, parts
from mmjax.core import errors, trees
from mmjax.data import mixture
from mmjax.objectives import weighting

RAMP = dict(name="linear", points=((0, 0.0), (10, 1.0)))
CODES = "tasks.main.objectives.codes"


@pytest.fixture(scope="module")
def make(resolve):
  """`make(**{"a.b": value})`: parts of two tasks on drawn pictures."""

  def run(changes, of=parts.make_parts):
    def edit(config):
      config.tasks.few = dict(
        data=dict(split="test"),
        objectives=dict(few_codes=dict(name="tokenizer_training")),
      )
      config.mixture = "sample"
      for key, value in changes.items():
        *path, last = key.split(".")
        node = config
        for part in path:
          if part not in node:
            node[part] = {}
          node = node[part]
        node[last] = value

    return of(resolve("tokenizer", edit))

  return run


def shares(made, step=0):
  return made.mixture.shares(np.array([step]))[0]


def test_tasks_are_in_every_step_unless_they_are_sampled(make):
  made = make({"mixture": "sum"})

  assert isinstance(made.mixture, mixture.Sum)
  assert made.mixture.at(3) == ("few", "main")
  assert isinstance(made.weighting, weighting.Constant)


def test_rates_are_those_of_the_tasks(make):
  made = make({"tasks.few.rate": 3})

  np.testing.assert_allclose(shares(made), [0.75, 0.25])
  np.testing.assert_allclose(shares(make({})), [0.5, 0.5])


def test_rates_in_proportion_to_the_data(make):
  made = make(
    {"mixing": dict(rates="proportional", temperature=2.0), "train.seed": 5}
  )

  sizes = [len(made.pipelines[t]) for t in ("few", "main")]
  assert sizes[0] != sizes[1]
  expected = np.sqrt(sizes)
  np.testing.assert_allclose(shares(made), expected / expected.sum())
  assert made.mixture.seed == 5


def test_rates_and_weights_may_change_over_training(make):
  made = make({"tasks.few.rate": RAMP, f"{CODES}.weight": RAMP})

  np.testing.assert_allclose(shares(made, 0), [0.0, 1.0])
  np.testing.assert_allclose(shares(made, 5), [1 / 3, 2 / 3])
  weight = made.objectives["codes"].weight
  assert [weight(step) for step in (0, 5, 99)] == [0.0, 0.5, 1.0]


def test_weight_of_the_task_multiplies_a_schedule(make):
  made = make({"tasks.main.weight": 0.5, f"{CODES}.weight": RAMP})

  assert made.objectives["codes"].weight(10) == 0.5


@pytest.mark.parametrize(
  "changes, match",
  [
    (
      {"tasks.main.rate": 0.0, "tasks.few.rate": 0.0},
      "rates of all tasks are zero at step 0.*'few'.*'main'",
    ),
    (
      {"tasks.main.rate": 0.0, "tasks.few.rate": RAMP},
      "rates of all tasks are zero at step 0",
    ),
    ({"tasks.few.rate": -1.0}, r"config.tasks.few.rate=-1.0, expected .* >= 0"),
    ({"tasks.few.rate": "often"}, "config.tasks.few.rate='often'"),
    (
      {"mixture": "sum", "tasks.few.rate": 0.5},
      "config.tasks.few.rate=0.5 changes nothing with config.mixture='sum'",
    ),
    (
      {"mixture": "sum", "mixing.rates": "proportional"},
      "config.mixing.rates='proportional' changes nothing",
    ),
    ({"mixture": "samples"}, "Unknown mixture 'samples'.*mean 'sample'"),
    ({"mixing.rates": "size"}, "Unknown kind of rates 'size'"),
    ({"mixing.temperature": 2.0}, "temperature=2.0 changes nothing"),
    (
      {"mixing": dict(rates="proportional", temperature=0.0)},
      "temperature=0.0, expected > 0",
    ),
    ({f"{CODES}.weight": -1.0}, rf"config.{CODES}.weight=-1.0, expected"),
    ({"tasks.main.weight": -1.0}, r"config.tasks.main.weight=-1.0, expected"),
    (
      {"tasks.main.weight": 0.0, "tasks.few.weight": 0.0},
      "weights of all objectives are zero",
    ),
    (
      {f"{CODES}.weight": 0.0},
      r"config.tasks.main.rate=1.0, but the weights of all its objectives",
    ),
    (
      {f"{CODES}.weight": dict(name="ramp", points=((0, 1.0),))},
      rf"config.{CODES}.weight: Unknown schedule 'ramp'",
    ),
    (
      {f"{CODES}.weight": dict(name="steps", points=((9, 1.0), (3, 2.0)))},
      r"weight: The steps of a schedule are \[9, 3\]",
    ),
    (
      {f"{CODES}.weight": dict(name="steps", point=((9, 1.0),))},
      rf"Unknown key 'config.{CODES}.weight.point'.*mean 'points'",
    ),
    ({"weighting.name": "uncertain"}, "Unknown weighting 'uncertain'"),
    (
      {"weighting": dict(name="uncertainty", objectives=("code",))},
      "objective of config.weighting.objectives 'code'.*mean 'codes'",
    ),
    (
      {"weighting": dict(name="grad_norm", shared=(".*",))},
      "'grad_norm' compares .*mixture='sample'.*mixture='sum'",
    ),
    (
      {"mixture": "sum", "weighting": dict(name="grad_norm")},
      r"config.weighting: shared=\(\), expected patterns",
    ),
    (
      {
        "mixture": "sum",
        "train.accumulate": 2,
        "weighting": dict(name="grad_norm", shared=(".*",)),
      },
      "'grad_norm' compares .*whole batch, but train.accumulate=2",
    ),
    (
      {
        "mixture": "sum",
        "tasks.few.weight": 0.0,
        "weighting": dict(name="grad_norm", shared=(".*",)),
      },
      r"'grad_norm' compares .*only \['codes'\]",
    ),
  ],
)
def test_what_cannot_be_is_refused_with_both_sides(make, changes, match):
  with pytest.raises(errors.UserError, match=match):
    make(changes)


def test_pattern_of_shared_parameters_has_to_match_trained_ones(make):
  changes = {
    "mixture": "sum",
    "weighting": dict(name="grad_norm", shared=("visual_tokeniser/.*",)),
  }
  with pytest.raises(errors.UserError, match="matches none of the .* trained"):
    make(changes, of=experiment.prepare)


def test_learned_weights_are_parameters_like_others(make):
  changes = {
    "weighting.name": "uncertainty",
    "optimizer.lr_factors": (("loss_weights/.*", 10.0),),
    "optimizer.ema_decay": 0.5,
  }

  made = make(changes, of=experiment.prepare)

  names = {
    "loss_weights/log_variance/codes",
    "loss_weights/log_variance/few_codes",
  }
  assert names <= set(trees.flatten(made.abstract_state.params))
  assert names <= set(trees.flatten(made.abstract_state.ema))
  moments = trees.flatten(made.abstract_state.opt_state)
  for name in names:
    assert sum(n.endswith(name) for n in moments) == 2
    assert made.trainable[name]


def test_learned_weights_may_be_frozen(make):
  changes = {
    "weighting.name": "uncertainty",
    "finetune.frozen": ("loss_weights/.*",),
  }

  made = make(changes, of=experiment.prepare)

  moments = trees.flatten(made.abstract_state.opt_state)
  assert not any("loss_weights" in name for name in moments)


def test_cost_of_a_step_is_that_of_its_task(make):
  def cost(**changes):
    return make(changes, of=experiment.prepare)

  both = cost(**{"mixture": "sum"}).flops_per_example
  sampled = cost(**{"train.num_steps": 40})
  count = sampled.parts.mixture.counts(40)

  one, other = (sampled.flops_of_steps[t,] for t in ("main", "few"))
  assert one + other == pytest.approx(both * 8, rel=1e-6)
  mean = (count["main"] * one + count["few"] * other) / 40 / 8
  assert sampled.flops_per_example == pytest.approx(mean)
