"""A plan as text, as Markdown, and as JSON."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from mmjax.plan import roofline as roofline_lib
from mmjax.plan.collectives import Collective
from mmjax.plan.compile import Plan

Row = Sequence[str]
LIMITS = {
  "compute": "products at the peak rate",
  "hbm": "memory at its rate",
  "ici": "ICI",
  "dcn": "DCN",
}
SHOWN = 8  # Rows of collectives; the rest is one row. JSON has all.


def describe(plan: Plan) -> str:
  """The whole plan, as Markdown that also reads well on a terminal."""
  parts = [_headline(plan), _table(("memory of a chip", "MiB"), _memory(plan))]
  if plan.memory is not None:
    rows = _collectives(plan)
    header = ("collective", "axis", "over", "times", "MiB each", "MiB sent")
    parts.append(_table(header, rows) if rows else "No collectives.")
  if plan.roofline is not None:
    parts.append(_table(("seconds of a step", ""), _secs(plan)))
  return "\n\n".join(parts)


def compare(plans: Sequence[Plan], labels: Sequence[str]) -> str:
  """One row a plan; efficiency is examples a second and chip, to the first."""
  rows = []
  for plan, label in zip(plans, labels, strict=True):
    each = plan.examples_per_sec / plan.chips
    base = plans[0].examples_per_sec / plans[0].chips
    sent = sum(c.sent_a_step for c in plan.collectives)
    rows.append(
      (
        label,
        f"{plan.chips}",
        f"{plan.batch_size:,}",
        _mesh(plan.mesh),
        _fit(plan),
        f"{_gib(plan.memory.total)}" if plan.memory else "-",
        f"{sent / 2**20:,.0f}" if plan.memory else "-",
        _number(plan.step_secs, ".4f"),
        _number(plan.mfu, ".1%"),
        plan.roofline.bound if plan.roofline else "-",
        _number(each / base, ".3f"),
      )
    )
  header = (
    "plan, chips, batch, mesh, fits, GiB, MiB sent, s/step, MFU, bound, "
    "efficiency"
  )
  return _table(header.split(", "), rows)


def _headline(plan):
  topology, chip = plan.topology, plan.topology.chip
  slices = f", {topology.slices} slices" if topology.slices > 1 else ""
  remat = ", ".join(f"{k} {v}" for k, v in plan.remat.items())
  lines = [
    f"{topology.name}{slices}: {plan.chips} x "
    f"{chip.name if chip else 'CPU'}, mesh {_mesh(plan.mesh)}, rules "
    f"{plan.rules}, {plan.precision}",
    f"{plan.num_params / 1e6:.1f} M parameters, {plan.batch_size:,} examples "
    f"a step, {plan.model_flops / plan.batch_size / 1e9:.4g} GFLOP each; "
    f"remat: {remat or 'none'}",
    f"lowered in {plan.lower_secs:.0f} s, compiled in {plan.compile_secs:.0f} "
    f"s; program {plan.program[:12]}",
    f"memory: {_fit(plan)}",
  ]
  if plan.roofline is not None:
    lines.append(
      f"at best {plan.step_secs:.4f} s a step, {plan.examples_per_sec:,.0f} "
      f"examples/s, MFU {plan.mfu:.1%}, bound by {plan.roofline.bound}"
    )
  if not topology.exact:
    lines.append(
      "compiled for CPUs: memory and traffic are estimates, as other kernels "
      "run there"
    )
  return "\n".join(lines)


def verdict(plan: Plan) -> str:
  """One line: whether it fits, and how fast."""
  if plan.roofline is None:
    return _fit(plan)
  return (
    f"{_fit(plan)}; at best {plan.step_secs:.4f} s a step, MFU {plan.mfu:.1%}, "
    f"bound by {plan.roofline.bound}"
  )


def _fit(plan):
  spare = plan.spare_bytes
  if plan.fits:
    return "fits" if math.isinf(spare) else f"fits, {_gib(spare)} GiB spare"
  if not math.isfinite(spare):
    return "does not fit"
  return f"does not fit, by {_gib(-spare)} GiB"


def _memory(plan):
  if plan.memory is None:
    kinds = dict(plan.state_bytes)
    missing = plan.missing or {}
    kinds |= {f"all, as {k}": v for k, v in missing.items()}
    return [(k, _mib(v)) for k, v in kinds.items()]
  kinds = dataclasses.asdict(plan.memory)
  rows = [(k.replace("_", " "), _mib(v)) for k, v in kinds.items()]
  return [*rows, ("total", _mib(plan.memory.total))]


def by_kind(found: Sequence[Collective]) -> list[dict[str, Any]]:
  """Collectives of one kind along the same axes, largest volume first."""
  groups: dict[Any, list[Collective]] = {}
  for one in found:
    groups.setdefault((one.kind, one.axes, one.network), []).append(one)
  rows = [
    {
      "kind": kind,
      "axes": axes,
      "network": network,
      "times": sum(c.times for c in members),
      "bytes": sum(c.bytes * c.times for c in members),
      "sent": sum(c.sent_a_step for c in members),
    }
    for (kind, axes, network), members in groups.items()
  ]
  return sorted(rows, key=lambda row: -row["sent"])


def _collectives(plan):
  rows = by_kind(plan.collectives)
  shown = [
    (
      row["kind"],
      " ".join(row["axes"]) or "-",
      row["network"],
      f"{row['times']:,}",
      f"{row['bytes'] / row['times'] / 2**20:,.2f}",
      f"{row['sent'] / 2**20:,.1f}",
    )
    for row in rows[:SHOWN]
  ]
  rest = sum(row["sent"] for row in rows[SHOWN:])
  if rest:
    shown.append(("others", "", "", "", "", f"{rest / 2**20:,.1f}"))
  total = sum(row["sent"] for row in rows)
  if rows:
    shown.append(("all", "", "", "", "", f"{total / 2**20:,.1f}"))
  return shown


def _secs(plan):
  found = plan.roofline
  rows = [(what, f"{found.total(k):.4f}") for k, what in LIMITS.items()]
  rows.append(
    ("one operation after the other", f"{found.total('operations'):.4f}")
  )
  rows.append(("step", f"{found.secs:.4f}"))
  needed = plan.model_flops / plan.chips
  if needed:
    rows.append(("products computed / needed", f"{found.flops / needed:.2f}"))
  return rows


def as_json(plan: Plan) -> dict[str, Any]:
  """All numbers of a plan, in bytes, seconds and operations."""
  return {
    "topology": plan.topology.name,
    "slices": plan.topology.slices,
    "chips": plan.chips,
    "chip": dataclasses.asdict(plan.topology.chip)
    if plan.topology.chip
    else None,
    "exact": plan.topology.exact,
    "mesh": dict(plan.mesh),
    "rules": plan.rules,
    "precision": plan.precision,
    "remat": dict(plan.remat),
    "batch_size": plan.batch_size,
    "parameters": plan.num_params,
    "model_flops": plan.model_flops,
    "program_sha256": plan.program,
    "lower_secs": plan.lower_secs,
    "compile_secs": plan.compile_secs,
    "fits": plan.fits,
    "spare_bytes": _finite(plan.spare_bytes),
    "missing": _finite(plan.missing),
    "memory": _with_total(plan.memory),
    "collectives": by_kind(plan.collectives),
    "roofline": roofline_lib.as_json(plan.roofline) if plan.roofline else None,
    "examples_per_sec": _finite(plan.examples_per_sec),
    "mfu": _finite(plan.mfu),
  }


def _with_total(memory):
  if memory is None:
    return None
  return {**dataclasses.asdict(memory), "total": memory.total}


def _finite(value):
  if isinstance(value, Mapping):
    return {k: _finite(v) for k, v in value.items()}
  return value if value is not None and math.isfinite(value) else None


def _mesh(mesh):
  sizes = [f"{axis} {size}" for axis, size in mesh.items() if size > 1]
  return " x ".join(sizes) or "1 device"


def _gib(size):
  return f"{size / 2**30:.2f}"


def _mib(size):
  return f"{size / 2**20:,.1f}"


def _number(value, form):
  return "-" if math.isnan(value) else format(value, form)


def _table(header: Row, rows: Sequence[Row]) -> str:
  cells = [list(header), *[list(row) for row in rows]]
  widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
  lines = [
    "| "
    + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True))
    + " |"
    for row in cells
  ]
  lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
  return "\n".join(lines)
