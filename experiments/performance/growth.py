r"""How the cost of a step grows along each axis, beside what formulas say.

python experiments/performance/growth.py OUT.png > growth.md

For each axis a handful of small models, float32, all else fixed. FLOPs are
those of matrix products in the compiled step, memory is what XLA sets aside
beside arguments and results, time is the least of ROUNDS samples taken in
turns. Formulas count multiply-adds of matrix products, and as memory what a
backward pass needs at least. The slope of a line through the logarithms is the
exponent: 1 = twice as much costs twice as much. 10 minutes on 2 cores. Needs
matplotlib.
"""

import collections
import json
import math
import os
import subprocess
import sys
import time

import numpy as np
from growth_axes import AXES, Axis, Shape, config, x_value

ROUNDS = 5
SAMPLE_SECS = 0.15  # At least one step.


# Measuring, in a process for each axis.


def measure(name: str) -> None:
  """Prints the points of an axis as JSON."""
  axis = AXES[name]
  points = [(s, *compiled(axis, s)) for s in axis.shapes()]
  best = collections.defaultdict(lambda: math.inf)
  for _ in range(ROUNDS if name != "devices" else 0):
    for i, (_, run, _) in enumerate(points):
      best[i] = min(best[i], run())
  rows = []
  for i, (shape, _, found) in enumerate(points):
    flops, memory = axis.formula(shape)
    rows.append(
      {"x": x_value(axis, shape), **found, "formula_flops": flops}
      | {"formula_bytes": memory}
      | ({"secs": best[i]} if i in best else {})
    )
  print(json.dumps(rows))


def compiled(axis: Axis, s: Shape):
  """A function that times its steps, and what the compiled step says."""
  import jax

  from mmjax.build import experiment, settings
  from mmjax.data import loader
  from mmjax.plan import hlo, work
  from mmjax.train import predict

  made = experiment.prepare(
    settings.resolve(config(axis, s)), jax.devices()[: s.devices]
  )
  chosen = made.parts.mixture.choices[0]
  shapes = {t: b for t, b in made.abstract_batches().items() if t in chosen}
  with predict.placement(made.mesh, made.rules):
    step = made.step_fn.lower(made.abstract_state, shapes).compile()
  module = hlo.parse(step.as_text())
  found = {
    "flops": math.fsum(
      at.times * work.flops(module, at.computation, at.instruction)
      for at in hlo.walk(module)
    ),
    "bytes": step.memory_analysis().temp_size_in_bytes,
  }
  state = drawn(made.abstract_state)
  batch = made.put(
    {
      task: next(
        loader.train_batches(
          made.parts.pipelines[task], batch_size=s.batch, seed=0, num_threads=0
        )
      )
      for task in chosen
    }
  )

  def run():
    nonlocal state
    state, metrics = step(state, batch)
    jax.block_until_ready(metrics)
    start, count = time.perf_counter(), 0
    while (secs := time.perf_counter() - start) < SAMPLE_SECS or not count:
      state, metrics = step(state, batch)
      jax.block_until_ready(metrics)
      count += 1
    return secs / count

  return run, found


def drawn(abstract):
  """A state of small numbers: no time to compile what would initialise it."""
  import jax

  draw = np.random.default_rng(0)

  def place(x):
    if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
      return jax.device_put(jax.random.key(0), x.sharding)
    values = 0.02 * draw.standard_normal(x.shape)
    return jax.device_put(np.abs(values).astype(x.dtype), x.sharding)

  return jax.tree.map(place, abstract)


# Showing.


def slope(rows: list[dict], key: str) -> float | None:
  """The exponent of a quantity."""
  if key not in rows[0]:
    return None
  x, y = ([math.log(r[k]) for r in rows] for k in ("x", key))
  return float(np.polyfit(x, y, 1)[0])


COLUMNS = ("formula_flops", "flops", "secs", "formula_bytes", "bytes")


def table(found: dict[str, list[dict]]) -> str:
  """Exponents, as Markdown."""
  lines = [
    "| axis | from, to | FLOPs: formula | compiled | time | memory: formula |"
    " compiled | FLOPs over formula |",
    "|---|---|---|---|---|---|---|---|",
  ]
  for name, rows in found.items():
    slopes = [slope(rows, key) for key in COLUMNS]
    cells = ["-" if s is None else f"{round(s, 2) + 0.0:.2f}" for s in slopes]
    ratio = [r["flops"] / r["formula_flops"] for r in rows]
    lines.append(
      f"| {name} | {rows[0]['x']:,} to {rows[-1]['x']:,} | "
      + " | ".join(cells)
      + f" | {min(ratio):.3f} to {max(ratio):.3f} |"
    )
  return "\n".join(lines)


def plot(found: dict[str, list[dict]], path: str) -> None:
  """One small picture for each axis, all relative to its first point."""
  import matplotlib

  matplotlib.use("Agg")
  from matplotlib import pyplot as plt

  columns = math.ceil(len(found) / 2)
  figure, axes = plt.subplots(
    2, columns, figsize=(2.6 * columns, 5.6), layout="constrained"
  )
  kinds = {
    "flops": ("FLOPs", "C0", "o-"),
    "formula_flops": ("FLOPs, formula", "C0", "--"),
    "bytes": ("memory", "C1", "s-"),
    "formula_bytes": ("memory, formula", "C1", "--"),
    "secs": ("time", "C2", "^-"),
  }
  for ax, (name, rows) in zip(axes.flat, found.items(), strict=False):
    x = [r["x"] for r in rows]
    for key, (label, color, style) in kinds.items():
      if key in rows[0]:
        y = [r[key] / rows[0][key] for r in rows]
        ax.loglog(x, y, style, color=color, label=label, markersize=4)
    ax.set_title(name, fontsize=10)
    ax.set_yscale("log", base=2)
    low, high = ax.get_ylim()
    ax.set_ylim(min(low, 0.7), max(high, 1.4))
    ax.set_xticks(x, [f"{v:,}" for v in x])
    ax.minorticks_off()
    ax.grid(alpha=0.3)
    ax.yaxis.set_major_formatter("{x:g}")
  for ax in axes.flat[len(found) :]:
    ax.set_axis_off()
  figure.legend(
    *axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5
  )
  figure.supylabel("times that of the first point")
  figure.savefig(path, dpi=100)


def main(out: str) -> None:
  """Measures all axes, one after the other; prints the table."""
  found = {}
  for name in AXES:
    devices = max(s.devices for s in AXES[name].shapes())
    done = subprocess.run(
      [sys.executable, __file__, "--axis", name],
      env=os.environ
      | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)},
      check=True,
      stdout=subprocess.PIPE,
      text=True,
    )
    found[name] = json.loads(done.stdout.splitlines()[-1])
    print(name, json.dumps(found[name]), file=sys.stderr, flush=True)
  plot(found, out)
  print(table(found))


if __name__ == "__main__":
  if sys.argv[1:2] == ["--axis"]:
    measure(sys.argv[2])
  elif len(sys.argv) == 2:
    main(sys.argv[1])
  else:
    sys.exit(__doc__)
