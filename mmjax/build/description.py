"""What `mmjax inspect` prints: all that can be known without training."""

import math
from collections.abc import Sequence
from typing import Any

import ml_collections as mlc

from mmjax.build import experiment as experiment_lib
from mmjax.core import trees
from mmjax.core.piecewise import Piecewise
from mmjax.sharding import partition


def describe(config: mlc.ConfigDict, *, shardings: bool = False) -> str:
  """Text about parameters, batches, shardings, FLOPs and chance levels."""
  made = experiment_lib.prepare(config)
  rows = partition.report(made.abstract_state.params, made.shardings.params)
  total, trained = made.num_params()
  parts = [
    _heading(f"parameters: {total:,}, trained: {trained:,}"),
    _table(
      ("part", "parameters", "trained", "MiB", "MiB per device"),
      _by_part(rows, made.trainable),
    ),
    _heading(f"tasks, mixture {config.mixture!r}"),
    _table(("task", "examples", "rate", "share of all steps"), _tasks(made)),
    _heading("batch, by task"),
    _table(("task", "field", "spec", "axes", "what"), _fields(made)),
    _heading(f"mesh {dict(made.mesh.shape)}, rules {config.mesh.rules}"),
    _sharding_summary(rows),
  ]
  if shardings:
    parts.append(
      _table(
        ("parameter", "shape", "placed", "MiB", "MiB per device"),
        [
          (
            r["name"],
            r["shape"],
            _spec(r["spec"]),
            _mib(r["bytes"]),
            _mib(r["bytes_per_device"]),
          )
          for r in rows
        ],
      )
    )
  flops = made.flops_per_example
  state_bytes = trees.num_bytes(
    [made.abstract_state.params, made.abstract_state.opt_state]
  )
  parts += [
    _heading("cost of a training step"),
    f"{flops / 1e9:.3f} GFLOP per example, "
    f"{flops * made.batch_size / 1e9:.1f} per step of {made.batch_size}; "
    f"parameters and optimizer {_mib(state_bytes)} MiB",
    _heading(
      "loss of a model that knows nothing, nats; weighting "
      f"{config.weighting.name!r}"
    ),
    _table(
      ("objective", "task", "weight", "chance"),
      [
        (
          name,
          item.task,
          item.weight,
          "-" if chance is None else f"{chance:.3f}",
        )
        for name, item in made.parts.objectives.items()
        for chance in [made.chance()[name]]
      ],
    ),
  ]
  return "\n".join(parts)


def _by_part(rows, trainable):
  groups: dict[str, list[Any]] = {}
  for row in rows:
    groups.setdefault(row["name"].split("/")[0], []).append(row)
  out = []
  for part, members in groups.items():
    count = sum(math.prod(r["shape"]) for r in members)
    loose = sum(math.prod(r["shape"]) for r in members if trainable[r["name"]])
    out.append(
      (
        part,
        f"{count:,}",
        f"{loose:,}",
        _mib(sum(r["bytes"] for r in members)),
        _mib(sum(r["bytes_per_device"] for r in members)),
      )
    )
  return out


def _tasks(made):
  """How many examples each task has, how often it is drawn."""
  num_steps = made.config.train.num_steps
  counts = made.parts.mixture.counts(num_steps)
  rates = getattr(made.parts.mixture, "rates", {})
  return [
    (
      task,
      f"{len(source):,}",
      _number(rates[task]) if task in rates else "-",
      f"{counts[task] / num_steps:.1%}",
    )
    for task, source in made.parts.pipelines.items()
  ]


def _number(value):
  return str(value) if isinstance(value, Piecewise) else f"{value:.4g}"


def _fields(made):
  return [
    (task, name, str(spec), spec.axes, spec.doc)
    for task, specs in made.parts.fields.items()
    for name, spec in specs.items()
  ]


def _sharding_summary(rows):
  whole = [r for r in rows if r["bytes"] == r["bytes_per_device"]]
  large = [r["name"] for r in whole if r["bytes"] > partition.LARGE_BYTES]
  text = (
    f"{len(rows) - len(whole)} of {len(rows)} parameters are split, "
    f"{len(whole)} are on every device"
  )
  return text + (f"; over 1 MiB among these: {large}" if large else "")


def _spec(spec: Sequence[Any]) -> str:
  return "(" + ", ".join("-" if s is None else str(s) for s in spec) + ")"


def _mib(size: int) -> str:
  return f"{size / 2**20:.2f}"


def _heading(text: str) -> str:
  return f"\n{text}\n{'-' * len(text)}"


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
  cells = [[str(c) for c in row] for row in [header, *rows]]
  widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
  return "\n".join(
    "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()
    for row in cells
  )
