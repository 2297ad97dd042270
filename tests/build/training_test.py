import json

import numpy as np
import pytest

from mmjax.build import training
from mmjax.core import errors
from mmjax.data import order, sources, synthetic
from mmjax.objectives.tokenizer_training import TokenizerTraining


def files(folder):
  """Every file below a folder, and what it holds."""
  return {
    p.relative_to(folder).as_posix(): p.read_bytes()
    for p in folder.rglob("*")
    if p.is_file()
  }


@pytest.mark.parametrize(
  "changes",
  [
    {"evaluators.a": dict(name="reconstruction", splitt="test")},
    {"init.from_checkpoint": "no/such/run"},
    {"train.batch_size": 9},
  ],
)
def test_run_that_cannot_start_leaves_the_workdir_as_it_was(
  tiny, tmp_path, changes
):
  with pytest.raises(errors.UserError):
    training.Run(tiny(**changes), tmp_path / "new").execute()

  # So that the corrected config is not refused as another one.
  assert not (tmp_path / "new").exists()


class Recorder(training.Listener):
  def __init__(self):
    self.calls = []

  def on_start(self, run, first_step):
    self.calls.append(("start", first_step))

  def on_step(self, step):
    self.calls.append(("step", step))

  def on_log(self, row):
    self.calls.append((row["kind"], row["step"]))


@pytest.fixture(scope="module")
def finished(resolve, tmp_path_factory):
  """A run of three steps: listener, outcome, workdir, config."""
  workdir, recorder = tmp_path_factory.mktemp("run"), Recorder()

  def edit(config):
    config.train.num_steps = 3
    config.optimizer.warmup_steps = 2
    config.checkpoint = dict(every_steps=2, best_metric="held_out/rmse")
    config.log.every_steps = 2
    config.evaluators = dict(
      held_out=dict(name="loss", every_steps=2, data=dict(split="test"))
    )

  config = resolve("tokenizer", edit)
  outcome = training.Run(config, workdir, recorder).execute()
  return recorder, outcome, workdir, config


def rows(workdir):
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  return [json.loads(line) for line in lines]


@pytest.mark.slow
def test_listener_hears_everything_in_order(finished):
  assert finished[0].calls == [
    ("start", 0),
    ("step", 1),
    ("train", 1),
    ("step", 2),
    ("train", 2),
    ("eval", 2),
    ("step", 3),
    ("train", 3),
    ("eval", 3),
  ]


@pytest.mark.slow
def test_log_has_start_and_learning_rate_of_each_row(finished):
  got = rows(finished[2])

  assert got[0]["kind"] == "start"
  assert got[0]["num_params"] == got[0]["trainable_params"] > 0
  rates = {r["step"]: r["learning_rate"] for r in got if r["kind"] == "train"}
  # Two steps of warm-up, then half a cosine: its first step is the peak.
  assert rates == pytest.approx({1: 0.0015, 2: 0.003, 3: 0.003})


@pytest.mark.slow
def test_outcome_has_the_evaluation_at_the_end(finished):
  _, outcome, workdir, _ = finished

  assert (outcome.step, outcome.finished) == (3, True)
  last = [r for r in rows(workdir) if r["kind"] == "eval"][-1]
  assert outcome.results["held_out/codes/loss"] == pytest.approx(
    last["held_out/codes/loss"]
  )


@pytest.mark.slow
def test_steps_are_saved_by_their_period_and_at_the_end(finished):
  folder = finished[2] / "checkpoints"

  assert sorted(p.name for p in folder.iterdir()) == ["2", "3"]


@pytest.mark.slow
def test_finished_run_gives_its_results_again(finished):
  _, outcome, workdir, config = finished
  before = files(workdir)

  again = training.Run(config, workdir).execute()

  assert again == outcome
  assert files(workdir).keys() == before.keys()


BATCH = 8
# The examples at the places 25 and 30 of each epoch: of the fourth batch.
BAD = order.shuffle(np.array([25, 30]), 32, seed=0)[1].tolist()


class Patchy(synthetic.SyntheticSource):
  """Few drawn pictures, two of which are damaged."""

  def __len__(self):
    return 32

  def __getitem__(self, index, /):
    example = super().__getitem__(index)
    return {**example, "image": b"cut"} if index in BAD else example


@pytest.fixture
def patchy(tiny, monkeypatch):
  """`patchy(fraction)`: the config of six steps on such data."""
  monkeypatch.setitem(sources.SOURCES, "patchy", Patchy)

  def make(fraction):
    return tiny(
      **{
        "data.source": "patchy",
        "data.max_bad_fraction": fraction,
        "train.num_steps": 6,
        "train.batch_size": BATCH,
        "checkpoint.every_steps": 0,
      }
    )

  return make


@pytest.mark.slow
def test_too_many_broken_examples_stop_a_run_that_can_go_on(patchy, tmp_path):
  whole, parts = tmp_path / "whole", tmp_path / "parts"
  training.Run(patchy(0.1), whole).execute()

  with pytest.raises(errors.UserError) as e:
    training.Run(patchy(0.05), parts).execute()
  assert "allows 1" in str(e.value)
  for index in BAD:
    assert f"train[{index}]: not a picture" in str(e.value)
  assert [p.name for p in (parts / "checkpoints").iterdir()] == ["3"]

  outcome = training.Run(patchy(0.1), parts).execute()
  assert outcome.finished
  bad, losses = (
    [
      {r["step"]: r[key] for r in rows(folder) if key in r}
      for folder in (whole, parts)
    ]
    for key in ("bad_examples", "loss")
  )
  assert losses[0] == losses[1] and sorted(losses[0]) == [1, 2, 3, 4, 5, 6]
  assert [found[6] for found in bad] == [2, 2]


def test_an_objective_can_stop_a_run_and_what_was_saved_before_is_kept(
  tiny, tmp_path, monkeypatch
):
  rows = []

  def check(self, row):
    rows.append(dict(row))
    return "too few codes." if row["step"] == 2 else None

  monkeypatch.setattr(TokenizerTraining, "check_metrics", check)
  run = training.Run(tiny(**{"checkpoint.every_steps": 1}), tmp_path)
  with pytest.raises(
    training.Unhealthy, match="step 2: the objective 'codes' says: too few"
  ):
    run.execute()
  assert [row["step"] for row in rows] == [1, 2]
  # Its own numbers, by their own names; of codes, over the window.
  assert 0 < rows[1]["codes_usage"] <= 1 and "batch_usage" in rows[1]
  assert run.checkpointer.steps() == [1]
