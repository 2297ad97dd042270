"""The frozen model of another run, which objectives learn from.

`config.model.teacher` is its workdir. The model has its encoders, fusion and
shared space, as that run's config describes them, and those of its heads that
objectives ask for; of these, what is called in a step gets parameters, under
`teacher/`. They come from the newest checkpoint (`initial.load_teacher`), are
never trained and are saved with the run's own, so that a run that goes on, or
is evaluated, needs no more of that workdir than its config.json. Of its data,
nothing is read: they may be gone.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import ml_collections as mlc

from mmjax.build import pipelines
from mmjax.build import settings as settings_lib
from mmjax.core import config as config_lib
from mmjax.core import errors
from mmjax.train import url_folder

PART = "teacher"
PREFIX = f"{PART}/"
# What both have to read alike, where both read it.
SAME = ("image_size", "video_size", "num_frames", "sample_rate", "num_samples")


def read_config(workdir: str) -> mlc.ConfigDict:
  """The config of a run, completed.

  Raises:
    UserError: the folder holds no run.
  """
  path = url_folder.fetched(workdir, "none") / "config.json"
  if not path.is_file():
    raise errors.UserError(
      f"config.model.teacher={workdir!r}: no run there. Expected a folder that "
      "`mmjax train --workdir=...` wrote, with config.json and checkpoints/."
    )
  saved = config_lib.from_plain(json.loads(path.read_text("utf-8")))
  config_lib.search(saved.get("search_path", ""))  # Its plug-ins.
  resolved = settings_lib.resolve(saved)
  if resolved.finetune.lora:
    raise errors.UserError(
      f"config.model.teacher={workdir!r} has adapters (finetune.lora), which a "
      "teacher has not. Merge them first: `mmjax weights merge "
      "--workdir=W --out=W2`."
    )
  return resolved


def readable(
  group: settings_lib.ModelSettings, facts: Mapping[str, Any]
) -> settings_lib.ModelSettings:
  """The model's settings without encoders of what these data lack."""
  encoders = dict(group.encoders)
  if "vocab_size" not in facts:  # Its tokenizer isn't known either.
    encoders.pop("text", None)
  return dataclasses.replace(group, encoders=encoders)


def joint_facts(
  config: mlc.ConfigDict, facts: Mapping[str, Any]
) -> dict[str, Any]:
  """What the teacher's factories need to know: its sizes, our vocabulary.

  Args:
    config: of the teacher's run.
    facts: what the data of this run say.

  Raises:
    UserError: the two read their data differently.
  """
  theirs = stated(config)
  for name in SAME:
    if facts.get(name, theirs.get(name)) != theirs.get(name, facts.get(name)):
      raise errors.UserError(
        f"The teacher was trained with {name}={theirs[name]}, the data of this "
        f"run have {name}={facts[name]}. Set config.data to what the teacher "
        "expects."
      )
  # What is hidden is hidden from the student.
  ours = {k: v for k, v in facts.items() if not k.endswith("_grid")}
  if theirs.get("max_tokens", 0) < ours.get("max_tokens", 0) and theirs.get(
    "max_tokens"
  ):
    raise errors.UserError(
      f"The teacher takes texts of max_tokens={theirs['max_tokens']}, the data "
      f"of this run have max_tokens={ours['max_tokens']}."
    )
  return {**ours, **theirs}


def stated(config: mlc.ConfigDict) -> dict[str, Any]:
  """What a config says about its data, without a look at them."""
  facts: dict[str, Any] = {}
  for task in config.tasks.values():
    data = pipelines.merged_data(config, task.data)
    if data.get("image") and not data["image"].get("patches"):
      facts["image_size"] = data["image"]["size"]
    if data.get("video"):
      facts["video_size"] = data["video"]["size"]
      facts["num_frames"] = data["video"]["num_frames"]
    if data.get("audio"):
      facts["sample_rate"] = data["audio"]["sample_rate"]
      facts["num_samples"] = round(
        data["audio"]["max_secs"] * data["audio"]["sample_rate"]
      )
    for name in ("text", "answer"):
      if data.get(name):
        length = data[name].get("max_tokens", 0)
        facts["max_tokens"] = max(facts.get("max_tokens", 0), length)
  return facts
