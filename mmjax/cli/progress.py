"""What `mmjax train` shows: a bar on a terminal, lines elsewhere."""

import time
from collections.abc import Mapping
from typing import Any

from rich import console as rich_console
from rich import progress as rich_progress

from mmjax.build import training


class Progress(training.Listener):
  """Stage, step, loss, examples/s and time left."""

  def __init__(self, stage: str, num_steps: int):
    self._stage = stage
    self._num_steps = num_steps
    self._console = rich_console.Console(highlight=False, soft_wrap=True)
    self._live = self._console.is_terminal
    self._chance: Mapping[str, float | None] = {}
    self._bar = rich_progress.Progress(
      rich_progress.TextColumn("[bold]{task.description}"),
      rich_progress.BarColumn(bar_width=24),
      rich_progress.TextColumn("{task.completed}/{task.total}"),
      rich_progress.TextColumn("{task.fields[numbers]}"),
      rich_progress.TextColumn("left"),
      rich_progress.TimeRemainingColumn(),
      console=self._console,
      disable=not self._live,
    )
    self._task = self._bar.add_task(stage, total=num_steps, numbers="")
    self._first_step = 0
    self._start = time.monotonic()

  def __enter__(self) -> "Progress":
    self._bar.start()
    self._bar.update(self._task, numbers="building, compiling")
    return self

  def __exit__(self, *error: Any) -> None:
    self._bar.stop()

  def on_start(self, run: training.Run, first_step: int) -> None:
    """Prints what is trained and where it came from."""
    total, trained = run.experiment.num_params()
    self._chance = run.experiment.chance()
    self._first_step = first_step
    self._start = time.monotonic()
    self._bar.update(self._task, completed=first_step)
    self._print(
      f"{self._stage}: {total / 1e6:.2f} M parameters, "
      f"{trained / 1e6:.2f} M trained; {run.init_report}"
    )
    for said in _appended(run):
      self._print(said)

  def on_step(self, step: int) -> None:
    """Moves the bar."""
    self._bar.update(self._task, completed=step)

  def on_log(self, row: Mapping[str, Any]) -> None:
    """Shows losses; beside the first ones, what knowing nothing would give."""
    if row["kind"] == "eval":
      for name, value in row.items():
        if name not in ("kind", "step", "time"):
          self._print(f"  {name:48s} {_format(value)}")
      return
    losses = {
      k.removesuffix("/loss"): v for k, v in row.items() if k.endswith("/loss")
    }
    if row["step"] == self._first_step + 1:
      for name, loss in losses.items():
        chance = self._chance.get(name)
        level = "" if chance is None else f" (chance {chance:.3f})"
        self._print(f"  {name}: first loss {_format(loss)}{level}")
    numbers = [f"loss {_format(row['loss'])}"]
    numbers += [
      f"{k} {_format(v)}" for k, v in losses.items() if len(losses) > 1
    ]
    if row.get("examples_per_sec"):
      numbers.append(f"{row['examples_per_sec']:.0f} examples/s")
    if row.get("input_wait_fraction", 0.0) > 0.1:
      cause = f" ({row['input_cause']})" if "input_cause" in row else ""
      numbers.append(f"waits for data {row['input_wait_fraction']:.0%}{cause}")
    if row.get("bad_examples"):
      numbers.append(f"bad examples {row['bad_examples']:,}")
    text = "  ".join(numbers)
    self._bar.update(self._task, numbers=text)
    if not self._live:
      self._print(
        f"{self._stage} {row['step']}/{self._num_steps}  {text}  "
        f"{self._left(row['step'])} left"
      )

  def on_message(self, text: str) -> None:
    """Prints a line above the bar."""
    self._print(text)

  def _left(self, step: int) -> str:
    done = max(step - self._first_step, 1)
    secs = (time.monotonic() - self._start) / done * (self._num_steps - step)
    return f"{int(secs) // 60}:{int(secs) % 60:02d}"

  def _print(self, text: str) -> None:
    self._console.print(text, markup=False)


def _appended(run: training.Run) -> set[str]:
  """Text tokenizers that lacked some special tokens, in words."""
  pipelines = run.experiment.parts.pipelines.values()
  made = [p.tokenizer for p in pipelines if p.tokenizer is not None]
  return {f"  text tokenizer: {t.describe()}" for t in made if t.appended}


def _format(value: Any) -> str:
  return f"{value:.4g}" if isinstance(value, (int, float)) else str(value)
