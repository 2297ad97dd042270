r"""Times the training step of a config, beside peers on the same machine.

  mmjax bench --config=configs/bench/vit.py --peer=timm --peer=lean
  mmjax bench --suite=cpu --json=bench.json
  mmjax bench --suite=cpu --rows=1,3,11 --peer=big_vision:PATH

Compile time, speed, MFU, memory, losses, and how much of the speed is left
with the config's own data. Each candidate has a process of its own and its
turn in every round; ratios are medians over rounds. Peers: timm, open_clip,
transformers (pip install 'mmjax[bench]'), big_vision:PATH of a checkout, lean
(experiments/performance/lean.py). `mmjax bench data` times the input alone.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmjax.cli import arguments
from mmjax.cli.arguments import Flag
from mmjax.core import errors

SUITES = ("cpu", "gpu", "data")
FLAGS = (
  Flag(
    "config",
    "",
    "config file, FILE or FILE:arg; --config.a.b=value overrides a key",
  ),
  Flag("peer", "", "whom to time beside it; may be given several times"),
  Flag("precision", "both", "float32, bfloat16 (the fast one) or both"),
  Flag("rounds", 5, "samples of each candidate, in another order each round"),
  Flag("secs", 2.0, "time of a sample; one step at least"),
  Flag("suite", "", "the tables of docs/bench.md: cpu, gpu or data"),
  Flag("rows", "", "of the suite, their numbers separated by commas [all]"),
  Flag("dry_run", False, "lists what the suite would run"),
  Flag("json", "", "file for the figures"),
)


def main(argv: Sequence[str]) -> int:
  """Runs the verb."""
  if argv and not argv[0].startswith("-"):
    known = ["bench data", "bench generate"]
    raise errors.unknown("verb", f"bench {argv[0]}", known)
  rest, overrides = arguments.split_overrides(argv)
  peers, rest = _peers(rest)
  flags = arguments.parse(__doc__, FLAGS, rest)
  if bool(flags.config) == bool(flags.suite):
    raise errors.UserError(
      "Give either --config=FILE, or --suite with one of "
      f"{list(SUITES)}; see `mmjax bench --help`."
    )
  # Candidates have processes, and devices, of their own: this one takes none.
  import jax

  jax.config.update("jax_platforms", "cpu")
  arguments.ready_for_grain()
  if flags.suite:
    text, found = _suite(flags, peers)
  else:
    text, found = _steps(flags, overrides, peers)
  print(text)
  if flags.json and found:
    path = Path(flags.json)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
  return 0


def _peers(argv: Sequence[str]) -> tuple[list[str], list[str]]:
  """Takes each `--peer=NAME` out, whose values may have commas too."""
  flag = "--peer="
  given = [a.removeprefix(flag) for a in argv if a.startswith(flag)]
  names = [name for text in given for name in text.split(",") if name]
  return list(dict.fromkeys(names)), [a for a in argv if not a.startswith(flag)]


def _steps(flags, overrides, peers) -> tuple[str, dict[str, Any]]:
  from mmjax.bench import candidate, steps, tables

  precisions = candidate.PRECISIONS
  if flags.precision != "both":
    if flags.precision not in precisions:
      known = [*precisions, "both"]
      raise errors.unknown("precision", flags.precision, known)
    precisions = (flags.precision,)
  config = arguments.load_config(flags.config, overrides)
  found = steps.run(
    config,
    peers=peers,
    precisions=precisions,
    num_rounds=flags.rounds,
    secs=flags.secs,
    say=_say,
  )
  return tables.steps({"config": flags.config, **found}), found


def _suite(flags, peers) -> tuple[str, dict[str, Any]]:
  if flags.suite not in SUITES:
    raise errors.unknown("suite", flags.suite, SUITES)
  if flags.suite == "data":
    return _data(flags)
  if flags.suite == "gpu":
    from mmjax.bench import suite_gpu

    return suite_gpu.run(
      num_rounds=flags.rounds, dry_run=flags.dry_run, say=_say
    )
  from mmjax.bench import suite

  return suite.run(
    rows=[row for row in flags.rows.split(",") if row],
    peers=peers,
    num_rounds=flags.rounds,
    secs=flags.secs,
    dry_run=flags.dry_run,
    say=_say,
  )


def _data(flags) -> tuple[str, dict[str, Any]]:
  from mmjax.bench import data

  if flags.dry_run:
    return f"mmjax bench data --parts={','.join(data.PARTS)}", {}
  found = data.run(
    data.PARTS,
    num_pictures=1000,
    num_rounds=flags.rounds,
    secs=flags.secs,
    examples=20_000,
    say=_say,
  )
  return data.describe(found), found


def _say(text: str) -> None:
  print(f"  {text.strip().splitlines()[-1]}", file=sys.stderr, flush=True)
