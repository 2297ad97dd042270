"""What the processes of one job compare before they train together."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_collections as mlc

from mmjax.build import initial, workdirs
from mmjax.core import config as config_lib
from mmjax.distributed import agreement
from mmjax.distributed.job import Job

# Some network file systems say for seconds that a new file does not exist.
VISIBLE_SECS = 15.0


def check_start(job: Job, config: mlc.ConfigDict, workdir: Path | None) -> None:
  """Checks that all processes run the same thing; each has to call it.

  Args:
    job: the processes.
    config: of the run.
    workdir: that all should see; None: each has its own.

  Raises:
    UserError: another config, workdir, code or package in one of them.
  """
  plain = config_lib.plain(config)
  folder = plain.pop("search_path", "")
  job.check(
    {
      "config": plain,
      "workdir": str(workdir and workdir.absolute()),
      "code": agreement.code_fingerprint(folder),
      "versions": initial.versions(),
    }
  )


def check_ready(
  job: Job,
  workdir: Path | None,
  first: int,
  batches: Iterator[dict[str, Any]],
) -> Iterator[dict[str, Any]]:
  """Checks what only shows when a run is built; each has to call it.

  Args:
    job: the processes.
    workdir: claimed by the first of them; None: each has its own.
    first: the step that this process goes on from.
    batches: of this process.

  Returns:
    The same batches.

  Raises:
    UserError: the workdir is not shared, or the processes go on from
      different steps or have batches of different shapes.
  """
  job.waits_for_input(first + 1)
  batch = next(batches)
  job.steps(first + 1)  # From here on, it waits for the others.
  agreement.gather("")  # The first process has written its config.
  facts = {"first step": first + 1, "batch": agreement.shapes(batch)}
  if workdir is not None:
    file = workdir / workdirs.CONFIG_FILE
    facts[f"sees {file}"] = _sees(file)
  job.check(facts)
  return _again(batch, batches)


def _sees(file):
  deadline = time.monotonic() + VISIBLE_SECS
  while not (seen := file.exists()) and time.monotonic() < deadline:
    time.sleep(0.2)
  return seen


def _again(batch, batches):
  yield batch
  yield from batches  # Closes them when it is closed.
