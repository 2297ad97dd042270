r"""Compiles a run for hardware that is not there, and says what it costs.

  mmjax plan --config=configs/pretrain/joint_l16.py --topology=v5e:16x16

Fits or not, memory of a chip by kind, collectives by mesh axis, and, by a
roofline, seconds a step and model FLOPs utilisation. Topologies: v4, v5p as
v5p:4x4x8; v5e, v6e as v5e:8x16 (these need `pip install 'mmjax[tpu]'`, not a
TPU); h100:8 and h200:8 by formula; cpu:8. With several, weak scaling: the
batch is that of the last, others get their share.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from mmjax.cli import arguments
from mmjax.cli.arguments import Flag
from mmjax.core import errors

FLAGS = (
  Flag(
    "config",
    "",
    "config file, FILE or FILE:arg; --config.a.b=value overrides a key",
    required=True,
  ),
  Flag("topology", "", "what to compile for, e.g. v5e:16x16", required=True),
  Flag("slices", 1, "of TPUs, joined by the data centre's network"),
  Flag("json", "", "file to write all numbers to"),
  Flag("markdown", "", "file to write the tables to"),
  Flag("sweep", False, "try combinations of the flags below and rank them"),
  Flag("fsdp", "", "sizes of that axis, e.g. 1,16 [1 and the config's]"),
  Flag("tensor", "", "sizes of that axis [the config's]"),
  Flag("remat", "none,dots,full", "policies, of all stacks"),
  Flag("batch_size", "", "examples a step [the config's, half and twice]"),
)


def main(argv: Sequence[str]) -> int:
  """Runs the verb."""
  rest, overrides = arguments.split_overrides(argv)
  flags = arguments.parse(__doc__, FLAGS, rest)
  config = arguments.load_config(flags.config, overrides)
  _set_up(flags.topology)
  arguments.ready_for_grain()

  from mmjax.plan import topologies

  found = [
    topologies.topology(name, flags.slices)
    for name in flags.topology.split(",")
  ]
  if flags.sweep:
    text, numbers = _sweep(config, found[-1], flags)
  else:
    text, numbers = _plan(config, found)
  if flags.json:
    _write(flags.json, json.dumps(numbers, indent=2) + "\n")
  if flags.markdown:
    _write(flags.markdown, text + "\n")
  return 0


def _set_up(names):
  """This machine's CPU traces; it is as many devices as are asked for."""
  import jax

  from mmjax.cli import backend
  from mmjax.plan import topologies

  jax.config.update("jax_platforms", "cpu")
  fake = [n for n in names.split(",") if topologies.is_fake(n)]
  if fake:
    backend.fake_devices(max(8, *(topologies.count(n) for n in fake)))
    backend.set_up()


def _plan(config, found):
  from mmjax.plan import compile as compile_lib
  from mmjax.plan import tables

  plans, texts = [], []
  last = len(found[-1].devices)
  for topology in found:
    share = compile_lib.scaled(config, len(topology.devices) / last)
    plans.append(compile_lib.plan(share, topology))
    texts.append(tables.describe(plans[-1]))
    print(texts[-1] + "\n", flush=True)
  if len(plans) > 1:
    texts.append(tables.compare(plans, [t.name for t in found]))
    print(texts[-1])
  numbers = [tables.as_json(p) for p in plans]
  return "\n\n".join(texts), numbers[0] if len(numbers) == 1 else numbers


def _sweep(config, topology, flags):
  from mmjax.plan import sweep, tables

  mesh, batch = config.mesh, config.train.batch_size
  grid = sweep.Grid(
    _integers("fsdp", flags.fsdp) or sorted({1, max(mesh.fsdp, 1)}),
    _integers("tensor", flags.tensor) or [max(mesh.tensor, 1)],
    flags.remat.split(","),
    _integers("batch_size", flags.batch_size)
    or [max(batch // 2, 1), batch, batch * 2],
  )
  outcomes = []
  total = len(grid.candidates())
  for outcome in sweep.run(config, topology, grid):
    outcomes.append(outcome)
    state = outcome.refused or tables.verdict(outcome.plan)
    print(f"{len(outcomes)}/{total} {outcome.candidate}: {state}", flush=True)
  best = sweep.ranked(outcomes)
  text = "None of them fits."
  if best:
    names = [str(o.candidate) for o in best]
    text = tables.compare([o.plan for o in best], names)
  print("\n" + text)
  numbers = [
    {
      "candidate": str(o.candidate),
      "refused": o.refused,
      **(tables.as_json(o.plan) if o.plan else {}),
    }
    for o in [*best, *(o for o in outcomes if o not in best)]
  ]
  return text, numbers


def _integers(name, text):
  try:
    values = [int(n) for n in text.split(",") if n]
  except ValueError as e:
    raise errors.UserError(
      f"--{name}={text}, expected numbers, e.g. --{name}=1,16."
    ) from e
  if any(v < 1 for v in values):
    raise errors.UserError(f"--{name}={text}, expected 1 or more.")
  return values


def _write(name, text):
  path = Path(name)
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(text, encoding="utf-8")
