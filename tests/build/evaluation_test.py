import dataclasses
import json

import jax
import numpy as np
import pytest

from mmjax import evaluators
from mmjax.build import evaluation, experiment
from mmjax.core import errors
from mmjax.core.interfaces import Artifact
from mmjax.data import sources, synthetic


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fake:
  """Says how many examples it saw; draws a picture."""

  batches: object
  value: float = 1.0

  def run(self, predict, params):
    count = sum(int(batch["example_mask"].sum()) for batch in self.batches())
    yield "examples", np.float32(count)
    yield "value", self.value + params["offset"]

  def pictures(self, predict, params):
    yield Artifact("table", "matrix", "A table", {"values": [[1]]})


@pytest.fixture
def make(resolve, tmp_path, monkeypatch):
  """`make(name=section, ...)`: an `Evaluation` in `tmp_path`."""
  monkeypatch.setitem(evaluators.EVALUATORS, "fake", Fake)

  def run(**sections):
    def edit(config):
      config.evaluators = {
        name: dict(name="fake", data=dict(split="test")) | section
        for name, section in sections.items()
      }

    config = resolve("tokenizer", edit)
    made = experiment.prepare(config, jax.devices()[:1])
    return evaluation.Evaluation(config, made, tmp_path)

  return run


def read(tmp_path, step):
  return json.loads(
    (tmp_path / "evaluations" / f"{step:08d}" / "metrics.json").read_text()
  )


def test_results_are_named_returned_and_written(make, tmp_path):
  runner = make(a={}, b=dict(value=3.0))

  results = runner.run({"offset": 0.5}, 7, pictures=False)

  assert results == {
    "a/examples": 128.0,
    "a/value": 1.5,
    "b/examples": 128.0,
    "b/value": 3.5,
  }
  assert read(tmp_path, 7) == results


class Patchy(synthetic.SyntheticSource):
  """Drawn pictures, one of which is damaged."""

  def __getitem__(self, index, /):
    example = super().__getitem__(index)
    return {**example, "image": b"cut"} if index == 7 else example


def test_results_say_how_many_broken_examples_were_left_out(make, monkeypatch):
  monkeypatch.setitem(sources.SOURCES, "patchy", Patchy)
  runner = make(a=dict(data=dict(source="patchy", split="test")), b={})

  for _ in range(2):  # The second pass meets the same one.
    results = runner.run({"offset": 0.0}, 7, pictures=False)

  assert results["a/examples"] == 127.0
  assert results["a/bad_examples"] == 1.0
  assert results["b/examples"] == 128.0
  assert "b/bad_examples" not in results


def test_results_of_one_step_are_joined(make, tmp_path):
  runner = make(a={}, b={})

  runner.run({"offset": 1.0}, 7, ["a"], pictures=False)
  runner.run({"offset": 2.0}, 7, ["b"], pictures=False)

  assert read(tmp_path, 7)["a/value"] == 2.0
  assert runner.read_results(7)["b/value"] == 3.0


def test_step_that_was_not_evaluated_has_no_results(make):
  assert make(a={}).read_results(3) == {}


def test_pictures_are_written_if_wanted(make, tmp_path):
  runner = make(a={})
  runner.run({"offset": 0.0}, 1, pictures=False)
  runner.run({"offset": 0.0}, 2, pictures=True)

  written = [
    p.relative_to(tmp_path / "evaluations").as_posix()
    for p in sorted((tmp_path / "evaluations").rglob("a.*"))
  ]
  assert written == ["00000002/a.table.json"]


@pytest.mark.parametrize(
  ("step", "last", "expected"),
  [
    (2, False, ["often"]),
    (3, False, []),
    (4, False, ["often", "seldom"]),
    (5, True, ["end", "often", "seldom"]),
  ],
)
def test_evaluators_are_due_by_their_periods_and_at_the_end(
  make, step, last, expected
):
  runner = make(often=dict(every_steps=2), seldom=dict(every_steps=4), end={})

  assert sorted(runner.due(step, last)) == expected


def test_unknown_evaluator_names_the_nearest(make):
  with pytest.raises(errors.UserError, match="Did you mean 'retrieval'"):
    make(retrieval={}).check_names(["retrieval", "retrival"])
