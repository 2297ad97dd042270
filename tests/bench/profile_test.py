"""Where the time goes: kinds of work, and a real trace of a small step."""

import json
import os
import types
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from mmjax.bench import profile_kinds, profile_trace, profiling
from mmjax.bench.profile_trace import Event
from mmjax.build import settings
from mmjax.core import errors
from tests.golden import programs
from tests.golden.programs import BATCH, LAYERS, MLP, PATCH, TOKENS, WIDTH

STEPS = 2


@pytest.mark.parametrize(
  "kind, scope",
  [
    ("attention", "jvp(M.encode)/encoders_text/stack/layer_00/attention/query"),
    ("attention", "M.decode/decoders_text/stack/layer_1/cross_attention"),
    ("mlp", "transpose(jvp(M.encode))/encoders_image/stack/layer_00/mlp/out"),
    ("mlp", "jvp(M.fuse)/fusion/stack/layers/mlp_text/hidden"),
    ("norm", "jvp(M.encode)/encoders_text/stack/layer_00/attention_norm"),
    ("norm", "jvp(M.encode)/encoders_text/stack/layer_00/attention/query_norm"),
    ("norm", "objective_mlm/M.head/heads_mlm/norm"),
    ("embedding", "jvp(objective_mlm/M.encode)/encoders_text/stem/tokens"),
    ("heads and losses", "jvp(objective_mlm/M.head)/heads_mlm/logits"),
    ("heads and losses", "transpose(jvp(objective_contrastive))/while/body"),
    ("optimizer", "optimizer"),
    ("other", "M.encode/encoders_text/stack/layer_00"),
    ("other", ""),
  ],
)
def test_the_innermost_name_that_says_something_decides(kind, scope):
  assert profile_kinds.kind_of(scope) == kind


@pytest.mark.parametrize(
  "part, scope",
  [
    ("encoders_text", "jvp(objective_mlm/M.encode)/encoders_text/stem/tokens"),
    (
      "fusion",
      "objective_mlm/transpose(jvp(M.fuse))/fusion/stack/layer_00/mlp",
    ),
    ("objective_pairs", "transpose(jvp(objective_pairs))/while/body"),
    ("optimizer", "optimizer"),
    ("other", "M.encode"),
  ],
)
def test_a_part_of_the_model_comes_before_the_objective(part, scope):
  assert profile_kinds.part_of(scope) == part


def test_operations_are_read_from_the_text_of_a_program():
  text = """HloModule step

ENTRY %main (x: f32[4]) -> f32[4] {
  %x = f32[4]{0} parameter(0)
  %sum = f32[4]{0} all-reduce-start(%x), metadata={op_name="jit(s)/mlp/add"}
  %tokens = f32[4]{0} negate(%sum), metadata={op_name="jit(s)/a, b->c/tokens"}
  %w = f32[4]{0} copy(%x), metadata={op_name="s.params[\\'heads_a\\'][\\'b\\']"}
  %m = f32[4]{0} copy(%x), metadata={op_name="state.opt_state[0].mu[\\'mlp\\']"}
  ROOT %out = f32[4]{0} add(%x, %x), metadata={op_name="jit(s)/fusion/mlp/add"}
}
"""
  found = profiling.places(text)

  assert found["x"] == ("other", "other")
  assert found["sum"] == ("collectives", "other")
  assert found["tokens"] == ("other", "other")  # A primitive is no module.
  assert found["w"] == ("heads and losses", "heads_a")
  assert found["m"] == ("optimizer", "optimizer")
  assert found["out"] == ("mlp", "fusion")


def test_what_an_operation_calls_is_not_its_own_time():
  events = [
    Event("loop", "step", 0.0, 10e9),
    Event("dot", "step", 1e9, 4e9),
    Event("inner", "step", 5e9, 9e9),
    Event("add", "step", 6e9, 7e9),
    Event("dot", "step", 12e9, 13e9),
  ]

  own = profile_trace.own_secs(reversed(events))

  # The loop: 10 less 3 of the product and 4 of the inner one.
  assert own == {"loop": 3.0, "dot": 4.0, "inner": 3.0, "add": 1.0}


def test_an_operation_that_begins_as_another_ends_is_not_called_by_it():
  events = [
    Event("loop", "step", 0.0, 10e9),
    Event("dot", "step", 1e9, 4e9),
    Event("add", "step", 4e9, 6e9),
  ]
  own = profile_trace.own_secs(events)
  assert own == {"loop": 10.0 - 3.0 - 2.0, "dot": 3.0, "add": 2.0}


@pytest.fixture(scope="module")
def runs():
  """How often the step of `profile` ran."""
  return {"in all": 0}


@pytest.fixture(scope="module")
def profile(tmp_path_factory, runs):
  config = settings.resolve(programs.get_config("two_towers"))
  folder = tmp_path_factory.mktemp("profile")
  make, options = profiling._compile, profiling._options

  def counted(*args):
    compiled = make(*args)

    class Counted:
      as_text = compiled.as_text

      def __call__(self, state, batch):
        runs["in all"] += 1
        return compiled(state, batch)

    return Counted()

  def traced():
    runs["before the trace"] = runs["in all"]
    return options()

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(profiling, "_compile", counted)
    patch.setattr(profiling, "_options", traced)
    return profiling.run(config, folder, num_steps=STEPS)


@pytest.mark.slow
def test_flops_of_each_kind_are_those_of_the_formula(profile):
  n = (programs.IMAGE // PATCH) ** 2
  each = BATCH / profile.num_devices
  attention = mlp = 0
  for tokens in (n, TOKENS):
    attention += 2 * tokens * 4 * WIDTH**2 + 4 * tokens**2 * WIDTH
    mlp += 2 * tokens * 2 * WIDTH * MLP

  got = {row.name: row.flops for row in profile.kinds}
  assert got["attention"] == 3 * LAYERS * each * attention
  assert got["mlp"] == 3 * LAYERS * each * mlp
  # No gradient of the pixels.
  assert got["embedding"] == each * 2 * 2 * n * 3 * PATCH**2 * WIDTH
  assert not got["norm"] and not got["optimizer"] and not got["other"]


@pytest.mark.slow
def test_every_kind_of_work_took_time(profile):
  secs = {row.name: row.secs for row in profile.kinds}
  parts = {row.name for row in profile.parts if row.secs}

  for kind in set(secs) - {"infeed"}:  # All were there before the step.
    assert secs[kind] > 0, kind
  assert {
    "encoders_image", "encoders_text", "shared_space", "objective_pairs",
    "optimizer", "infeed", "other",
  } >= parts >= {"encoders_image", "encoders_text", "optimizer"}  # fmt: skip
  assert profile.trace.is_file()
  assert list(profile.trace.parent.glob("*.trace.json.gz"))


@pytest.mark.slow
def test_both_tables_have_all_of_the_step(profile):
  for name in ("secs", "flops"):
    kinds, parts = (
      sum(getattr(row, name) for row in rows)
      for rows in (profile.kinds, profile.parts)
    )
    assert kinds == pytest.approx(parts)
  text = profiling.describe(profile)
  first = [
    line.split("|")[1].strip() for line in text.splitlines() if "|" in line
  ]
  assert first[2 : first.index("all")] == list(profile_kinds.KINDS)
  numbers = json.loads(json.dumps(profiling.as_json(profile)))
  assert [row["name"] for row in numbers["kinds"]] == list(profile_kinds.KINDS)


@pytest.mark.slow
def test_bad_input_is_refused_before_anything_runs(tmp_path):
  config = settings.resolve(programs.get_config("two_towers"))

  with pytest.raises(errors.UserError, match="Did you mean 'main'"):
    profiling.run(config, tmp_path, task="mian")
  with pytest.raises(errors.UserError, match="No trace under"):
    profile_trace.newest(tmp_path)


class Step:
  """A compiled step and its batches, which take time on a clock of theirs."""

  def __init__(self, step_secs, input_secs, end_secs):
    self.now, self.wait_secs = 0.0, 50.0  # Waited before.
    self._secs = step_secs, input_secs, end_secs

  def perf_counter(self):
    return self.now

  def __call__(self, state, batch):
    self.now += self._secs[0]
    return self, {}

  def __next__(self):
    self.now += self._secs[1]
    self.wait_secs += self._secs[1]
    return {}

  def reset(self):
    waited, self.wait_secs = self.wait_secs, 0.0
    return waited

  def block_until_ready(self):
    self.now += self._secs[2]
    return self


def test_a_step_is_timed_to_its_end_and_so_is_what_it_waits_for(monkeypatch):
  step = Step(2.0, 0.5, 6.0)
  monkeypatch.setattr(profiling, "time", step)
  _, secs, waited = profiling._time(step, (), step, 4)
  assert secs == (4 * (2.0 + 0.5) + 6.0) / 4
  assert waited == 0.5


def test_seconds_of_a_program_are_those_of_a_step_and_device(monkeypatch):
  text = """HloModule step

ENTRY %main (x: f32[4]) -> f32[4] {
  %x = f32[4]{0} parameter(0)
  %one = f32[4]{0} add(%x, %x), metadata={op_name="jit(s)/fusion/mlp/add"}
  ROOT %two = f32[4]{0} add(%x, %x), metadata={op_name="jit(s)/fusion/mlp/add"}
}
"""
  threads = [
    [Event("one", "step", 0.0, 4e9), Event("elsewhere", "put", 5e9, 6e9)],
    [Event("two", "step", 1e9, 3e9)],
  ]
  monkeypatch.setattr(profile_trace, "lines", lambda path: iter(threads))
  found = profiling._secs(None, text, 3 * 2)
  assert found == {("mlp", "fusion"): (4 + 2) / 6}


def test_a_row_has_the_sum_of_its_places():
  secs = {("mlp", "a"): 1.0, ("mlp", "b"): 2.0, ("norm", "a"): 4.0}
  counted = {("mlp", "b"): 10.0, ("attention", "b"): 5.0, ("mlp", "a"): 20.0}
  found = profiling._rows(
    secs, counted, lambda place: place[0], ("other", "mlp")
  )
  assert [(row.name, row.secs, row.flops) for row in found] == [
    ("other", 0.0, 0.0),
    ("mlp", 3.0, 30.0),
    ("norm", 4.0, 0.0),
    ("attention", 0.0, 5.0),
  ]


def test_batches_of_another_length_of_texts_are_left_out(monkeypatch):
  lengths = [4, 8, 4, 6, 4]
  batches = [{"text": np.full((2, n), i)} for i, n in enumerate(lengths)]
  monkeypatch.setattr(
    profiling.loader, "train_batches", lambda *args, **kwargs: iter(batches)
  )
  made = mock.MagicMock()
  found = profiling._batches(made, ("main",))
  taken = [int(next(found)["main"]["text"][0, 0]) for _ in range(3)]
  assert taken == [0, 2, 4]


def test_tasks_are_those_of_the_step_that_has_the_one_asked_for():
  made = mock.Mock()
  made.parts.mixture.choices = (("a",), ("b", "c"))
  assert profiling._tasks(made, "") == ("a",)
  assert profiling._tasks(made, "c") == ("b", "c")


def test_the_last_trace_that_was_written_is_read(tmp_path):
  for name, nanoseconds in (("b", 100), ("c", 300), ("a", 200)):
    file = tmp_path / "plugins" / "profile" / name / "host.xplane.pb"
    file.parent.mkdir(parents=True)
    file.touch()
    os.utime(file, ns=(nanoseconds, nanoseconds))
  assert profile_trace.newest(tmp_path).parent.name == "c"


def test_of_a_trace_the_operations_of_programs_are_read(monkeypatch):
  def event(start, duration, **stats):
    return types.SimpleNamespace(
      start_ns=start, duration_ns=duration, stats=list(stats.items())
    )

  def line(name, *events):
    return types.SimpleNamespace(name=name, events=events)

  dot = event(10.0, 5.0, hlo_op="dot", hlo_module="step")
  planes = [
    types.SimpleNamespace(
      lines=[
        line("XLA Modules", event(0.0, 90.0, hlo_op="step")),  # Their sum.
        line("Stream", dot, event(20.0, 1.0, name="python")),
        line("Idle", event(0.0, 1.0)),
      ]
    )
  ]
  monkeypatch.setattr(
    profile_trace.jax.profiler,
    "ProfileData",
    types.SimpleNamespace(
      from_file=lambda path: types.SimpleNamespace(planes=planes)
    ),
  )
  found = list(profile_trace.lines(Path("host.xplane.pb")))
  assert found == [[Event("dot", "step", 10.0, 15.0)]]


@pytest.mark.parametrize(
  "opcode, expected",
  [
    ("all-reduce", True),
    ("all-gather-start", True),
    ("collective-permute-done", True),
    ("reduce", False),
    ("copy-start", False),
  ],
)
def test_collectives_are_known_by_their_opcodes(opcode, expected):
  assert profile_kinds.is_collective(opcode) == expected


@pytest.mark.slow
def test_the_step_is_warm_before_it_is_timed_and_then_traced(profile, runs):
  assert runs == {"before the trace": 1 + STEPS, "in all": 1 + 2 * STEPS}
