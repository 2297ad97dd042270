"""The folder of a run: which config it belongs to."""

import json
from pathlib import Path

import ml_collections as mlc

from mmjax.build import experiment as experiment_lib
from mmjax.build import settings as settings_lib
from mmjax.core import config as config_lib
from mmjax.core import errors
from mmjax.train import checkpoint

CONFIG_FILE = "config.json"
TOKENIZER_FILE = "tokenizer.json"


def check(workdir: Path, config: mlc.ConfigDict) -> None:
  """Checks that a workdir is new, or was made with the same config.

  Raises:
    UserError: the workdir holds a run of another config; nothing is changed.
  """
  path = workdir / CONFIG_FILE
  if path.exists():
    # Completed again: keys that mmjax has learned since are no change.
    saved = config_lib.from_plain(json.loads(path.read_text()))
    changed = checkpoint.compare_configs(
      config_lib.plain(settings_lib.resolve(saved)), config_lib.plain(config)
    )
    if changed:
      raise errors.UserError(
        f"{workdir} holds a run of another config:\n{changed}\nUse another "
        "--workdir, or the config that it was started with."
      )
  elif any((workdir / "checkpoints").glob("*")):
    raise errors.UserError(
      f"{workdir} has checkpoints but no {CONFIG_FILE}; use another --workdir."
    )


def claim(workdir: Path, config: mlc.ConfigDict) -> None:
  """Checks a workdir and writes the config into it.

  Raises:
    UserError: the workdir holds a run of another config; nothing is changed.
  """
  check(workdir, config)
  workdir.mkdir(parents=True, exist_ok=True)
  path = workdir / CONFIG_FILE
  temporary = path.with_suffix(".tmp")
  text = json.dumps(config_lib.plain(config), indent=2, sort_keys=True)
  temporary.write_text(text)
  temporary.replace(path)


def save_tokenizer(
  workdir: Path, experiment: experiment_lib.Experiment
) -> None:
  """Puts the text tokenizer of a run, if it has one, into its folder."""
  for source in experiment.parts.pipelines.values():
    if source.tokenizer is not None:
      source.tokenizer.save(workdir / TOKENIZER_FILE)
