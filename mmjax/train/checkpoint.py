"""Saves and restores a run: Orbax behind one class.

What Orbax leaves open is closed here: checksums (see `manifest`), a fall back
to an older step when the newest is damaged, an error instead of `False` when
a step exists already, and a readable diff when the trees differ.

A step folder holds two items, `state` (the arrays) and `meta` (JSON: config,
fingerprint, tokenizer ids, data position, versions, metrics), and a
`manifest.json`, written right after Orbax committed it.
"""

import concurrent.futures
import itertools
import json
import logging
import math
import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from mmjax.core import errors, trees
from mmjax.train import barrier, manifest, own_folder, retention, stored
from mmjax.train.resume import compare_configs as compare_configs
from mmjax.train.resume import fingerprint as fingerprint

T = TypeVar("T")
log = logging.getLogger(__name__)


class Checkpointer:
  """The checkpoints of one run, in a local or shared folder.

  Nothing is made on disk before the first `save`. The newest `keep` steps
  stay, and the best one; older ones are deleted only after a newer step is
  whole, manifest included.

  Of several processes each writes its part into the folder, which all see;
  or, if it is not `shared`, into its own: see `own_folder`.
  """

  def __init__(
    self,
    directory: str | os.PathLike[str],
    *,
    keep: int = 3,
    best_metric: str | None = None,
    best_mode: str = "max",
    async_: bool = True,
    shared: bool = True,
  ):
    if keep < 1:
      raise errors.UserError(f"checkpoint.keep={keep}, expected 1 or more.")
    if best_mode not in ("max", "min"):
      raise errors.unknown("checkpoint.best_mode", best_mode, ("max", "min"))
    self._directory = Path(directory).absolute()
    self._keep = keep
    self._best_metric = best_metric or None
    self._best_mode = best_mode
    self._async = async_
    self._shared = shared
    self._manager: ocp.CheckpointManager | None = None
    self._pool = concurrent.futures.ThreadPoolExecutor(
      1, thread_name_prefix="checkpoint"
    )
    self._pending: tuple[int, concurrent.futures.Future] | None = None
    self._damaged: set[int] = set()

  def save(
    self,
    step: int,
    state: Any,
    meta: Mapping[str, Any],
    metrics: Mapping[str, float] | None = None,
  ) -> None:
    """Starts to save; returns when the arrays may be donated.

    Waits for the save before it. A step that `restore` found damaged is moved
    to `damaged-<step>`, so that the run can pass it again.

    Args:
      step: number of the step; higher than all saved ones.
      state: tree of arrays, typed keys included.
      meta: plain values, as JSON has them. `step` and `metrics` are added.
      metrics: numbers of this step, among them `best_metric`.

    Raises:
      UserError: the step, or a higher one, is saved already.
      RuntimeError: the save before this one failed.
    """
    numbers = {k: float(v) for k, v in (metrics or {}).items()}
    meta = {
      **meta,
      "step": step,
      "metrics": {k: v for k, v in numbers.items() if math.isfinite(v)},
    }
    json.dumps(meta, allow_nan=False)  # Fail here, not in a thread.
    self.wait()
    self._set_aside()
    saved = self.steps()
    if saved and step <= saved[-1]:
      raise errors.UserError(
        f"Cannot save step {step} in {str(self._directory)!r}: it has the "
        f"steps {saved}, and only a higher one can follow. To continue from "
        "an older step, move the newer folders away or use another workdir."
      )
    manager = self._open_manager()
    items = stored.items if self._shared else own_folder.items
    if not manager.save(step, args=items(state, meta)):
      raise RuntimeError(
        f"Orbax did not save step {step} in {str(self._directory)!r}."
      )
    self._pending = step, self._pool.submit(self._complete, manager, step)
    if not self._async:
      self.wait()

  def restore(
    self, abstract_state: T, step: int | str = "latest"
  ) -> tuple[int, T, dict[str, Any]]:
    """Reads a state onto the devices that `abstract_state` names.

    The mesh may differ from the one that saved. "latest" and "best" fall back
    to the next step of that order if one is damaged, with a warning that
    names the damage; a step given by number does not.

    Args:
      abstract_state: `ShapeDtypeStruct`s with shardings.
      step: a number, "latest", or "best" by `best_metric`.

    Returns:
      The step, its state, its meta.

    Raises:
      UserError: no such step; all are damaged; the trees differ.
    """
    for name, leaf in trees.flatten(abstract_state).items():
      if getattr(leaf, "sharding", None) is None:
        raise ValueError(f"abstract_state: {name!r} has no sharding.")

    def read(folder):
      stored.check_tree(folder, abstract_state)
      return stored.read_all(folder, abstract_state)

    number, (state, meta) = self._first_good(step, read, together=True)
    return number, state, meta

  def restore_params(
    self, step: int | str = "latest", *, averaged: bool | None = False
  ) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads parameters and collections to host memory, whatever their tree.

    Args:
      step: a number, "latest" or "best".
      averaged: the moving averages of the parameters that have one; None: if
        there are any.

    Returns:
      Parameters and collections, as nested dicts of numpy arrays.

    Raises:
      UserError: no such step; or it keeps no averages, and they are wanted.
    """
    number, state = self._first_good(step, stored.read_variables)
    params, averages = state.get("params") or {}, state.get("ema") or {}
    if averaged and not averages:
      raise errors.UserError(
        f"Step {number} in {str(self._directory)!r} has no moving averages: "
        "its run had optimizer.ema_decay=0."
      )
    if averaged is not False:
      params = trees.unflatten(
        {**trees.flatten(params), **trees.flatten(averages)}
      )
    return params, state.get("collections") or {}

  def read_meta(self, step: int | str = "latest") -> dict[str, Any]:
    """Reads the JSON of a step, without a look at its arrays.

    "latest" and "best" go on to the next step if it is damaged.

    Raises:
      UserError: no such step, or no meta is readable.
    """
    number, meta, problems = stored.read_first_good(
      self._directory, self._candidates(step), stored.read_meta, under="meta/"
    )
    if number is None:
      raise errors.UserError(
        f"No readable meta data for step={step!r} in "
        f"{str(self._directory)!r}: {_listed(problems)}."
      )
    return meta

  def steps(self) -> list[int]:
    """All saved steps, the damaged included; waits for one being saved."""
    self.wait()
    return retention.saved_steps(self._directory)

  def latest(self) -> int | None:
    """The highest step, or None."""
    return max(self.steps(), default=None)

  def wait(self) -> None:
    """Waits until the last save is whole.

    Raises:
      RuntimeError: it failed.
    """
    pending, self._pending = self._pending, None
    if pending is None:
      return
    step, future = pending
    try:
      future.result()
    except Exception as e:
      raise RuntimeError(
        f"Saving step {step} in {str(self._directory)!r} failed: "
        f"{stored.first_line(e)}"
      ) from e

  def check(self) -> None:
    """Raises what `wait` would, if the last save has failed by now."""
    if self._pending is not None and self._pending[1].done():
      self.wait()

  def close(self) -> None:
    """Finishes what is being saved."""
    try:
      self.wait()
    finally:
      self._pool.shutdown()
      if self._manager is not None:
        self._manager.close()
        self._manager = None

  def _open_manager(self):
    if self._manager is None and not self._shared:
      self._manager = own_folder.open_manager(
        self._directory, async_=self._async
      )
    if self._manager is None:
      self._manager = ocp.CheckpointManager(
        self._directory,
        options=ocp.CheckpointManagerOptions(
          create=True,
          cleanup_tmp_directories=True,
          enable_async_checkpointing=self._async,
          async_options=ocp.options.AsyncOptions(barrier_sync_fn=barrier.wait),
        ),
      )
    return self._manager

  def _complete(self, manager, step):
    """Runs in a thread: waits for the commit, then what comes after it."""
    manager.wait_until_finished()
    if not self._tidies():
      return
    manifest.write(self._directory / str(step), self._part())
    retention.delete_old(
      self._directory, newest=step, keep=self._keep, best=self._ranked
    )

  def _tidies(self):
    """Whether this process does what is done once in a folder."""
    return not self._shared or jax.process_index() == 0

  def _part(self):
    """Which part of a step is in the folder; "" = all of it."""
    if self._shared or jax.process_count() == 1:
      return ""
    return f"{jax.process_index() + 1} of {jax.process_count()}"

  def _set_aside(self):
    damaged, self._damaged = self._damaged, set()
    if damaged and self._tidies():
      retention.set_aside(self._directory, damaged)
    if damaged and self._manager is not None:
      self._manager.reload()

  def _ranked(self, steps: Iterable[int]) -> list[int]:
    if self._best_metric is None:
      return []
    return retention.rank(steps, self._metric, self._best_mode)

  def _metric(self, step: int) -> float | None:
    try:
      metrics = stored.read_meta(self._directory / str(step))["metrics"]
      return float(metrics[self._best_metric])
    except Exception as e:  # Damaged, or saved without this metric.
      log.debug("Step %d has no %s: %r", step, self._best_metric, e)
      return None

  def _candidates(self, step: int | str) -> Sequence[int]:
    saved = self.steps()
    if not saved:
      raise errors.UserError(f"No checkpoint in {str(self._directory)!r}.")
    if step == "latest":
      return saved[::-1]
    if step == "best":
      ranked = self._ranked(saved)
      if not ranked:
        raise errors.UserError(
          f"step='best' needs a metric, but checkpoint.best_metric="
          f"{self._best_metric!r} was saved with none of the steps {saved}."
        )
      return ranked
    if str(step) not in map(str, saved):
      raise errors.UserError(
        f"No step {step!r} in {str(self._directory)!r}. Known: {saved}, "
        "'latest', 'best'."
      )
    return [int(step)]

  def _agreed(self, candidates):
    """Of several processes, the first says which step is good, for all.

    So the files are compared with the manifest once, not by each host, and
    none goes on from another step than the others.
    """
    bad: dict[int, str] = {}
    if jax.process_index() == 0:
      for step in candidates:
        folder = self._directory / str(step)
        if not manifest.exists(folder):
          break
        if not (damage := manifest.verify(folder)):
          break
        bad[step] = damage[0]
    good = candidates[len(bad)] if len(bad) < len(candidates) else -1
    good = int(multihost_utils.broadcast_one_to_all(np.int32(good)))
    for step in itertools.takewhile(lambda s: s != good, candidates):
      bad.setdefault(step, "damaged, says process 0")
    return [] if good < 0 else [good], bad

  def _first_good(
    self,
    step: int | str,
    read: Callable[[Path], Any],
    *,
    together: bool = False,
  ) -> tuple[int, Any]:
    """`together`: all processes call this at once, to read the same step."""
    candidates, bad = self._candidates(step), {}
    several = together and jax.process_count() > 1
    if several:
      candidates, bad = (
        self._agreed(candidates)
        if self._shared
        else own_folder.agreed(self._directory, candidates)
      )
    number, item, problems = stored.read_first_good(
      self._directory, candidates, read, verified=several
    )
    problems = bad | problems
    self._damaged.update(problems)
    if number is None:
      others = sorted(set(self.steps()) - set(candidates))
      raise errors.UserError(
        f"No undamaged checkpoint for step={step!r} in "
        f"{str(self._directory)!r}: {_listed(problems)}."
        + (f" Other steps: {others}." if others else "")
      )
    if problems:
      warnings.warn(
        f"DAMAGED CHECKPOINT in {str(self._directory)!r}: "
        f"{_listed(problems)}. Using step {number} instead.",
        stacklevel=3,
      )
    return number, item


def _listed(problems):
  return ", ".join(f"step {n} ({text})" for n, text in problems.items())
