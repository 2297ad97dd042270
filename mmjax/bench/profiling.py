"""Where the time of a training step goes, by kind of work.

Runs the step that `mmjax train` runs, on the config's own data. Time is from a
trace of it, joined with the compiled program by the names of its operations;
FLOPs are counted from the step's jaxpr, as those of the MFU are.
"""

import collections
import contextlib
import dataclasses
import itertools
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import ml_collections as mlc

from mmjax.bench import profile_kinds as kinds
from mmjax.bench import profile_trace as trace
from mmjax.build import experiment as experiment_lib
from mmjax.build import initial
from mmjax.core import errors
from mmjax.data import loader, prefetch
from mmjax.plan import hlo
from mmjax.train import flops, predict

Place = tuple[str, str]  # Kind of work, part of the model.
_OP_NAME = re.compile(r'op_name="([^"]*)"')


@dataclasses.dataclass(frozen=True)
class Row:
  """A kind of work or a part of the model, of a step and device."""

  name: str
  secs: float  # Of threads or streams, one after the other.
  flops: float


@dataclasses.dataclass(frozen=True)
class Profile:
  """A step by kinds of work, and again by parts of the model."""

  kinds: tuple[Row, ...]
  parts: tuple[Row, ...]
  tasks: tuple[str, ...]
  device: str
  num_devices: int
  num_steps: int  # That were traced.
  step_secs: float  # Of a step that was not traced.
  traced_secs: float  # Of one that was.
  compile_secs: float
  trace: Path

  @property
  def busy_secs(self) -> float:
    """What all operations of a step took."""
    return sum(row.secs for row in self.kinds)


def run(
  config: mlc.ConfigDict, workdir: Path, *, num_steps: int = 5, task: str = ""
) -> Profile:
  """Profiles a resolved config's step.

  Args:
    config: parameters start fresh, whatever its `init` says.
    workdir: where the trace goes.
    num_steps: to trace; one more than as many run before.
    task: of a mixture that draws one task a step; "" = the first.

  Raises:
    UserError: as `experiment.prepare`; an unknown task.
  """
  config = mlc.ConfigDict(config.to_dict())
  config.init.from_checkpoint = config.init.lora = ""
  made = experiment_lib.prepare(config)
  tasks = _tasks(made, task)
  batches = prefetch.Prefetcher(_batches(made, tasks), made.put)
  with contextlib.closing(batches):
    state, _ = initial.initial_state(config, made)
    first = next(batches)
    start = time.perf_counter()
    compiled = _compile(made, first)
    compile_secs = time.perf_counter() - start
    state = _warm(compiled, state, first)
    state, step_secs, _ = _time(compiled, state, batches, num_steps)
    with jax.profiler.trace(str(workdir), profiler_options=_options()):
      _, traced_secs, waited = _time(compiled, state, batches, num_steps)
  path = trace.newest(workdir)
  devices = made.mesh.devices.size
  secs = _secs(path, compiled.as_text(), num_steps * devices)
  secs[kinds.INFEED, kinds.INFEED] = waited
  counted = _flops(made, first, devices)
  by_part = _rows(secs, counted, lambda place: place[1])
  return Profile(
    kinds=_rows(secs, counted, lambda place: place[0], kinds.KINDS),
    parts=tuple(sorted(by_part, key=lambda row: -row.secs)),
    tasks=tasks,
    device=initial.device_name(),
    num_devices=devices,
    num_steps=num_steps,
    step_secs=step_secs,
    traced_secs=traced_secs,
    compile_secs=compile_secs,
    trace=path,
  )


def _tasks(made, task):
  """The tasks of the step to look at."""
  choices = made.parts.mixture.choices
  if not task:
    return choices[0]
  for choice in choices:
    if task in choice:
      return choice
  raise errors.unknown("task", task, sorted(itertools.chain(*choices)))


def _batches(made, tasks) -> Iterator[dict[str, Any]]:
  """Batches as in training; of buckets of texts, those like the first."""
  iterators = {
    task: loader.train_batches(
      made.parts.pipelines[task],
      batch_size=made.batching.sizes[task],
      seed=made.config.train.seed,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
    )
    for task in tasks
  }
  first = None
  while True:
    batches = {task: next(iterators[task]) for task in tasks}
    shapes = jax.tree.map(lambda x: x.shape, batches)
    first = first or shapes
    if shapes == first:
      yield batches


def _compile(made, batch):
  """Not from the cache, whose programs may have names of older sources."""
  before = jax.config.jax_enable_compilation_cache
  jax.config.update("jax_enable_compilation_cache", False)
  try:
    with predict.placement(made.mesh, made.rules):
      return made.step_fn.lower(made.abstract_state, batch).compile()
  finally:
    jax.config.update("jax_enable_compilation_cache", before)


def _options():
  options = jax.profiler.ProfileOptions()
  options.python_tracer_level = 0
  return options


def _warm(step, state, batch):
  state, _ = step(state, batch)
  return jax.block_until_ready(state)


def _time(step, state, batches, num_steps):
  """Seconds of a step, and how many of them it waited for data."""
  batches.reset()
  start = time.perf_counter()
  for number in range(num_steps):
    with jax.profiler.StepTraceAnnotation("train", step_num=number):
      state, _ = step(state, next(batches))
  jax.block_until_ready(state)
  secs = time.perf_counter() - start
  return state, secs / num_steps, batches.reset() / num_steps


def _secs(path, text, divide_by) -> dict[Place, float]:
  """What the trace has of a program, in seconds."""
  known = places(text)
  secs: dict[Place, float] = collections.defaultdict(float)
  for events in trace.lines(path):
    for operation, spent in trace.own_secs(events).items():
      if operation in known:
        secs[known[operation]] += spent / divide_by
  return secs


def places(text: str) -> dict[str, Place]:
  """To what each operation of a compiled program belongs."""
  return {
    name: _place_of(instruction)
    for computation in hlo.parse(text).computations.values()
    for name, instruction in computation.items()
  }


def _place_of(instruction: hlo.Instruction) -> Place:
  match = _OP_NAME.search(instruction.attributes)
  scope = match[1] if match else ""
  if scope.startswith("state.opt_state"):
    scope = kinds.OPTIMIZER
  elif "/" in scope:  # The last name is that of the primitive, not of a module.
    scope = scope.rpartition("/")[0]
  if kinds.is_collective(instruction.opcode):
    return kinds.COLLECTIVES, kinds.part_of(scope)
  return kinds.kind_of(scope), kinds.part_of(scope)


def _flops(made, batch, divide_by) -> dict[Place, float]:
  """With what remat computes again."""
  with predict.placement(made.mesh, made.rules):
    scopes = flops.flops_by_scope(made.train_step, made.abstract_state, batch)
  counted: dict[Place, float] = collections.defaultdict(float)
  for scope, count in scopes.items():
    counted[kinds.kind_of(scope), kinds.part_of(scope)] += count / divide_by
  return counted


def _rows(secs, counted, name_of, names=()) -> tuple[Row, ...]:
  """Sums of places that have a name in common."""
  rows = {name: Row(name, 0.0, 0.0) for name in names}
  for place in [*secs, *(place for place in counted if place not in secs)]:
    name = name_of(place)
    row = rows.get(name, Row(name, 0.0, 0.0))
    rows[name] = Row(
      name,
      row.secs + secs.get(place, 0.0),
      row.flops + counted.get(place, 0.0),
    )
  return tuple(rows.values())


def describe(found: Profile) -> str:
  """Tables that read well on a terminal and as Markdown."""
  tasks = f" of {', '.join(found.tasks)}" if len(found.tasks) > 1 else ""
  return "\n".join(
    [
      f"A step{tasks} on {found.num_devices} x {found.device}: "
      f"{found.step_secs * 1e3:,.2f} ms, {found.traced_secs * 1e3:,.2f} ms "
      f"traced; compiled in {found.compile_secs:.1f} s.",
      "",
      *_table("kind of work", found.kinds, found.busy_secs),
      "",
      *_table("part", found.parts, found.busy_secs),
      "",
      f"Trace: {found.trace.parent}",
      "Open its *.trace.json.gz at https://ui.perfetto.dev",
    ]
  )


def _table(title: str, rows: Sequence[Row], busy_secs: float) -> list[str]:
  cells = [(title, "ms", "share", "GFLOP", "GFLOP/s")]
  whole = Row("all", busy_secs, sum(row.flops for row in rows))
  for row in (*rows, whole):
    rate = row.flops / row.secs / 1e9 if row.secs else 0.0
    cells.append(
      (
        row.name,
        f"{row.secs * 1e3:,.2f}",
        f"{row.secs / busy_secs:.1%}" if busy_secs else "-",
        f"{row.flops / 1e9:,.3f}" if row.flops else "-",
        f"{rate:,.1f}" if rate else "-",
      )
    )
  first, *rest = (max(map(len, column)) for column in zip(*cells, strict=True))
  lines = [
    " | ".join(
      [name.ljust(first), *(n.rjust(w) for n, w in zip(ns, rest, strict=True))]
    )
    for name, *ns in cells
  ]
  rule = " | ".join(["-" * first, *("-" * (w - 1) + ":" for w in rest)])
  return [f"| {line} |" for line in (lines[0], rule, *lines[1:])]


def as_json(found: Profile) -> Mapping[str, Any]:
  """All numbers; of a step and device, in seconds and operations."""
  return {
    **dataclasses.asdict(found),
    "trace": str(found.trace),
    "busy_secs": found.busy_secs,
  }
