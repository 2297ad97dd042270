"""Training steps timed side by side: the config's own, and those of peers."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_collections as mlc

from mmjax.bench import machine, makers, rounds, work
from mmjax.bench.candidate import PRECISIONS, Work
from mmjax.core import errors


def run(
  config: mlc.ConfigDict,
  *,
  peers: Sequence[str] = (),
  precisions: Sequence[str] = PRECISIONS,
  num_rounds: int,
  secs: float,
  say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
  """Times the config's step beside peers.

  Args:
    config: resolved.
    peers: names, see `makers.peer`.
    precisions: of each candidate.
    num_rounds: samples of each.
    secs: time of a sample.
    say: told what goes on.

  Raises:
    UserError: a peer or precision that is unknown, not installed or cannot do
      the work; a config without a step, or a batch that does not fit.
  """
  check_numbers(num_rounds, secs)
  for precision in precisions:
    if precision not in PRECISIONS:
      raise errors.unknown("precision", precision, PRECISIONS)
  for name in peers:
    makers.check_peer(name)
  task = work.of(config)
  timed: dict[str, rounds.Make] = {}
  for precision in precisions:
    # Peers first: what is not installed says so at once.
    for name in peers:
      timed[makers.name_of(name, precision)] = makers.peer(
        name, task, precision
      )
    timed[makers.name_of(makers.OWN, precision)] = makers.own(config, precision)
    timed[makers.name_of(makers.PEAK, precision)] = makers.product(precision)
  last = precisions[-1]
  timed[makers.name_of(makers.INPUT, last)] = makers.own(
    config, last, real_input=True
  )
  before = machine.facts()
  results = rounds.run(
    timed, rounds=num_rounds, secs=secs, say=say, environment=makers.ENVIRONMENT
  )
  for result in results:
    if result.refused:
      raise errors.UserError(f"{result.name}: {result.missing}")
    if result.missing:
      raise RuntimeError(f"{result.name}: {result.missing}")
  return {
    "machine": before,
    "versions": machine.versions(),
    "work": _plain(task),
    "candidates": figures(results, _tasks(timed, task)),
    "ratios": _ratios(results, precisions),
  }


def check_numbers(num_rounds: int, secs: float) -> None:
  """Raises a `UserError` for less than a round, or no time."""
  if num_rounds < 1:
    raise errors.UserError(f"rounds={num_rounds}, expected at least 1.")
  if not 0 < secs < math.inf:
    raise errors.UserError(f"secs={secs:g}, expected more than 0.")


def _tasks(names, task: Work) -> dict[str, Work]:
  """The work of all but the product."""
  return {name: task for name in names if not name.startswith(makers.PEAK)}


def _plain(task: Work) -> dict[str, Any]:
  towers = {
    name: vars(value) if hasattr(value, "layers") else value
    for name, value in vars(task).items()
  }
  return towers


def figures(
  results: Sequence[rounds.Result], tasks: Mapping[str, Work]
) -> dict[str, dict[str, Any]]:
  """What is known of each candidate that has a task, by its name."""
  found = {result.name: result for result in results}
  return {
    name: _figures(result, found, tasks[name])
    for name, result in found.items()
    if name in tasks
  }


def _figures(result, found, task) -> dict[str, Any]:
  if not result.rates:
    return {"missing": result.missing}
  facts = dict(result.facts)
  speed = result.median
  said: dict[str, Any] = {
    "steps_per_sec": speed,
    "examples_per_sec": speed * task.batch_size,
    "tokens_per_sec": speed * task.batch_size * work.tokens(task),
    "rates": list(result.rates),
  }
  said |= _utilisation(result, found, task)
  precision = result.name.rpartition(" ")[2]
  exact = found.get(result.name.removesuffix(precision) + "float32")
  if precision != "float32" and exact and "losses" in exact.facts:
    said["parity"] = parity(facts["losses"], exact.facts["losses"])
  return said | facts


def _utilisation(result, found, task) -> dict[str, float]:
  """FLOP/s, and the share of what a large product reaches."""
  facts, speed = result.facts, result.median
  flops = facts.get("flops") or work.flops(task)
  if not flops:
    return {}
  said = {"flops_per_sec": flops * speed}
  devices = facts.get("num_devices", 1)
  peak = found.get(makers.name_of(makers.PEAK, result.name.rpartition(" ")[2]))
  if peak and (share := rounds.ratio(result, peak)):
    # One CPU is all its fake devices.
    count = 1 if facts.get("platform") == "cpu" else devices
    said["mfu"] = share.median * flops / peak.facts["flops"] / count
  if sheet := datasheet(facts.get("device", "")):
    said["mfu_datasheet"] = flops * speed / (sheet * devices)
  return said


def datasheet(device: str) -> float | None:
  """FLOP/s of bfloat16 of a device, where `plan` knows it."""
  from mmjax.plan import topologies

  text = device.lower().replace("lite", "e").replace(" ", "")
  keys = sorted(topologies.CHIPS, key=len, reverse=True)
  found = next((key for key in keys if key in text), None)
  return topologies.CHIPS[found].flops if found else None


def parity(losses: Sequence[float], exact: Sequence[float]) -> float:
  """The largest relative difference of the losses of the first steps."""
  pairs = zip(losses, exact, strict=True)
  return max(abs(a - b) / max(abs(b), 1e-9) for a, b in pairs)


def _ratios(
  results: Sequence[rounds.Result], precisions: Sequence[str]
) -> dict[str, dict[str, float]]:
  """Of mmjax to each other candidate of its precision, and to itself."""
  found = {result.name: result for result in results}
  pairs = []
  for precision in precisions:
    mine = makers.name_of(makers.OWN, precision)
    others = [n for n in found if n.endswith(f" {precision}") and n != mine]
    pairs += [
      (mine, n) for n in others if not n.startswith((makers.PEAK, makers.INPUT))
    ]
  last = precisions[-1]
  pairs.append(
    (makers.name_of(makers.INPUT, last), makers.name_of(makers.OWN, last))
  )
  if len(precisions) > 1:
    pairs.append(
      (
        makers.name_of(makers.OWN, last),
        makers.name_of(makers.OWN, precisions[0]),
      )
    )
  made = {f"{a} / {b}": rounds.ratio(found[a], found[b]) for a, b in pairs}
  return {name: vars(value) for name, value in made.items() if value}
