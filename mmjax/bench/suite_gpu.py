"""`mmjax bench --suite=gpu`: speed, share of the peak and memory on one GPU.

Made for a GPU that is lent for minutes: one command, no downloads, no peers;
after `BUDGET_SECS` nothing more is started.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_collections as mlc

import mmjax
from mmjax.bench import machine, makers, rounds, steps, suite, tables, work
from mmjax.build import settings
from mmjax.core import config as config_lib
from mmjax.core import errors

PRECISION = "bfloat16"
BUDGET_SECS = 420.0  # Of 9 minutes; a model may take two to start.
SECS = 3.0  # Of a sample.
JOINT = "configs/pretrain/joint_l16.py"
SMALL_BATCH, LARGE_BATCH = 4096, 32_768


@dataclasses.dataclass(frozen=True)
class Model:
  """A config to time, and what it has to reach."""

  name: str
  config: str  # Under configs/bench, or the path of a file.
  batch_size: int
  # Shares of the datasheet's FLOP/s.
  must: float = 0.0
  goal: float = 0.0
  examples_per_sec: float = 0.0  # A goal.
  attention: str = "cudnn"  # Of all stacks, see `StackOptions`.


MODELS = (
  Model("ViT-S/16", "vit:S", 512, 0.23, 0.30),
  Model("ViT-B/16", "vit:B", 256, 0.33, 0.50, 4700.0),
  Model("ViT-L/16", "vit:L", 256, 0.38, 0.50),
  Model("CLIP B/16", "siglip:B", 256, 0.33, 0.50, 3900.0),
  Model("joint L/16", JOINT, 64, 0.38, 0.50),
  # What the kernel gains.
  Model("ViT-B/16, XLA's attention", "vit:B", 256, attention="xla"),
)
# Compiled, not run: what the features of a large batch cost, kept, when it is
# computed in parts.
MEMORY = {
  f"contrastive {SMALL_BATCH:,}": (SMALL_BATCH, 1),
  f"contrastive {LARGE_BATCH:,}, in parts": (
    LARGE_BATCH,
    LARGE_BATCH // SMALL_BATCH,
  ),
}
MOST_MEMORY = 1.2  # Times that of the small batch.


def run(
  *,
  num_rounds: int,
  dry_run: bool = False,
  say: Callable[[str], None] = lambda text: None,
) -> tuple[str, dict[str, Any]]:
  """Runs what fits into the time.

  Returns:
    The text and all figures.

  Raises:
    UserError: there is no GPU, or mmjax is not run from a checkout.
  """
  steps.check_numbers(num_rounds, SECS)
  if dry_run:
    return _plan(), {}
  device = _device()
  start = time.monotonic()
  found: dict[str, Any] = {
    "machine": machine.facts(),
    "versions": machine.versions(),
    "device": device,
    "models": {},
    "memory": {},
  }
  for name, (batch_size, accumulate) in MEMORY.items():
    config = _load("siglip:large_batch", batch_size)
    config.train.accumulate = accumulate
    say(name)
    found["memory"][name] = _compiled(name, config)
  for model in MODELS:
    if time.monotonic() - start > BUDGET_SECS:
      found["models"][model.name] = {"missing": "no time left"}
      continue
    say(model.name)
    found["models"][model.name] = _timed(model, num_rounds, say)
  found["secs"] = time.monotonic() - start
  return describe(found), found


def _plan() -> str:
  lines = ["On one GPU, in bfloat16, each after the other:"]
  lines += [f"  compile {name} (siglip:large_batch)" for name in MEMORY]
  lines += [
    f"  time {m.name}: {m.config}, {m.batch_size} examples a step"
    for m in MODELS
  ]
  return "\n".join(lines)


def _device() -> Mapping[str, Any]:
  (result,) = rounds.run(
    {"device": makers.device},
    rounds=0,
    secs=SECS,
    environment=makers.ENVIRONMENT,
  )
  if result.facts.get("platform") != "gpu":
    seen = result.facts.get("device") or result.missing
    raise errors.UserError(
      "--suite=gpu needs one GPU of NVIDIA and pip install 'mmjax[cuda]'; jax "
      f"sees {seen!r}. --dry_run lists what it would run."
    )
  return result.facts


def _load(address: str, batch_size: int) -> mlc.ConfigDict:
  if address.endswith(".py"):
    root = Path(mmjax.__file__).resolve().parents[1]
    config = settings.resolve(config_lib.load(str(root / address)))
    for axis in ("replica", "data", "fsdp", "tensor", "sequence"):
      config.mesh[axis] = 1
  else:
    config = suite.load(address)
  config.train.batch_size = batch_size
  return config


def _set_attention(section: Mapping[str, Any], kind: str) -> None:
  """Of each stack within a section of a config."""
  for name, value in section.items():
    if name == "stack":
      value.attention = kind
    elif isinstance(value, mlc.ConfigDict):
      _set_attention(value, kind)


def _compiled(name: str, config: mlc.ConfigDict) -> dict[str, Any]:
  (result,) = rounds.run(
    {name: makers.compiled(config, PRECISION)},
    rounds=0,
    secs=SECS,
    environment=makers.ENVIRONMENT,
  )
  return dict(result.facts) or {"missing": result.missing}


def _timed(model: Model, num_rounds: int, say) -> dict[str, Any]:
  """Its figures, with half of the batch, or a quarter, if it does not fit."""
  name = makers.name_of(model.name, PRECISION)
  peak = makers.name_of(makers.PEAK, PRECISION)
  for batch_size in (model.batch_size // part for part in (1, 2, 4)):
    config = _load(model.config, batch_size)
    _set_attention(config.model, model.attention)
    results = rounds.run(
      {name: makers.own(config, PRECISION), peak: makers.product(PRECISION)},
      rounds=num_rounds,
      secs=SECS,
      say=say,
      environment=makers.ENVIRONMENT,
    )
    said = steps.figures(results, {name: work.of(config)})[name]
    if not results[0].refused:
      break
  return said | {"batch_size": batch_size}


def describe(found: Mapping[str, Any]) -> str:
  """Two tables: models, and the memory of a large batch."""
  header = (
    "model",
    "batch",
    "examples/s",
    "of the peak",
    "must",
    "goal",
    "of a product",
    "temp GiB",
    "flash",
    "with bias",
  )
  rows = [_row(model, found["models"][model.name]) for model in MODELS]
  return "\n".join(
    [
      tables.heading(found),
      str(found["device"].get("device")),
      "",
      *tables.table(header, rows),
      "",
      *_memory(found["memory"]),
      f"{found['secs'] / 60:.1f} minutes",
    ]
  )


def _row(model: Model, figures: Mapping[str, Any]) -> list[str]:
  if "missing" in figures:
    why = figures["missing"].strip().splitlines()[-1]
    return [model.name, why, *[""] * 8]
  share, own = figures.get("mfu_datasheet"), figures.get("mfu")
  return [
    model.name,
    str(figures["batch_size"]),
    f"{figures['examples_per_sec']:,.0f}",
    f"{share:.1%}" if share else "-",
    f"{model.must:.0%}",
    f"{model.goal:.0%}",
    f"{own:.1%}" if own else "-",
    f"{figures['temp_bytes'] / 2**30:.1f}",
    str(figures.get("flash_calls", "-")),
    str(figures.get("flash_bias_calls", "-")),
  ]


def _memory(figures: Mapping[str, Mapping[str, Any]]) -> list[str]:
  lines, sizes = [], []
  for name, said in figures.items():
    if "missing" in said:
      lines.append(f"{name}: {said['missing'].strip().splitlines()[-1]}")
      continue
    sizes.append(said["temp_bytes"] + said["argument_bytes"])
    lines.append(f"{name}: {sizes[-1] / 2**30:.1f} GiB")
  if len(sizes) == len(MEMORY):
    ratio = sizes[1] / sizes[0]
    lines.append(f"ratio {ratio:.2f}, must <= {MOST_MEMORY}")
  return lines
