import json

import pytest

from mmjax.build import workdirs
from mmjax.core import errors


def files(folder):
  """Every file below a folder, and what it holds."""
  return {
    p.relative_to(folder).as_posix(): p.read_bytes()
    for p in folder.rglob("*")
    if p.is_file()
  }


def test_workdir_gets_the_resolved_config(tiny, tmp_path):
  workdirs.claim(tmp_path / "a" / "b", tiny())

  saved = json.loads((tmp_path / "a" / "b" / "config.json").read_text())
  assert saved["train"]["batch_size"] == 8
  assert saved["optimizer"]["b2"] == 0.95  # A default.


def test_workdir_of_another_config_is_refused_with_the_difference(
  tiny, tmp_path
):
  workdirs.claim(tmp_path, tiny())
  before = files(tmp_path)

  with pytest.raises(errors.UserError) as e:
    workdirs.claim(
      tmp_path, tiny(**{"optimizer.peak_lr": 0.5, "train.seed": 3})
    )

  lines = str(e.value).splitlines()
  assert lines[1:3] == [
    "  optimizer.peak_lr: 0.003 -> 0.5",
    "  train.seed: 0 -> 3",
  ]
  assert "Use another --workdir" in str(e.value)
  assert files(tmp_path) == before


@pytest.mark.parametrize(
  "change",
  [
    {"log.every_steps": 7},
    {"checkpoint.keep": 9},
    {"mesh.fsdp": 2},
    {"data.max_bad_fraction": 0.5},
  ],
)
def test_what_changes_no_number_may_change(tiny, tmp_path, change):
  workdirs.claim(tmp_path, tiny())

  workdirs.claim(tmp_path, tiny(**change))

  ((key, value),) = change.items()
  group, name = key.split(".")
  saved = json.loads((tmp_path / "config.json").read_text())
  assert saved[group][name] == value


def test_checkpoints_without_a_config_are_not_touched(tiny, tmp_path):
  (tmp_path / "checkpoints" / "3").mkdir(parents=True)

  with pytest.raises(errors.UserError, match="checkpoints but no config.json"):
    workdirs.claim(tmp_path, tiny())

  assert files(tmp_path) == {}
