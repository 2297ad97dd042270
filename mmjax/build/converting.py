"""Workdirs of released weights, and released weights of workdirs."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import ml_collections as mlc
import numpy as np

from mmjax.build import checkpoints, experiment, initial, workdirs
from mmjax.build import settings as settings_lib
from mmjax.convert import FAMILIES, mapping, source, tensors
from mmjax.convert.family import Family, Found
from mmjax.core import config as config_lib
from mmjax.core import errors, trees
from mmjax.data import tokenizer_files
from mmjax.data.tokenizer import CHAT, LAYOUT, ROLES, TextTokenizer
from mmjax.data.tokenizer_backends import SENTENCEPIECE
from mmjax.models import variants
from mmjax.train import checkpoint
from mmjax.train import state as state_lib

# In a workdir: where its weights came from, for the way back.
RECORD = "conversion.json"
DTYPES = ("auto", "float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class Report:
  """What became what."""

  family: str
  rows: list[mapping.Row]
  num_tensors: int
  num_params: int  # Numbers in all parameters.
  notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Loaded:
  """A model of released weights, in memory."""

  experiment: experiment.Experiment
  params: dict[str, Any]
  record: dict[str, Any]  # For the way back.
  report: Report


def load(path: Path, *, family: str = "", tokenizer: str = "") -> Loaded:
  """Reads released weights; the arguments are those of `import_weights`."""
  found_source, files = source.open_source(path)
  kind = source.family_of(found_source, family)
  found = kind.find(found_source)
  config, notes = _config(kind, found, tokenizer or _beside(path))
  made = experiment.prepare(config)
  targets = trees.flatten(made.abstract_state.params)
  coverage = mapping.Coverage(
    kind.found_rules(found),
    files.specs,
    {name: tuple(x.shape) for name, x in targets.items()},
  )
  params = {
    name: jax.device_put(array, targets[name].sharding)
    for name, array in coverage.arrays(files.read)
  }
  record = dict(
    family=kind.name,
    source=str(path),
    config=found.config,
    dtypes={n: s.dtype for n, s in files.specs.items() if s.dtype != "F32"},
  )
  size = sum(x.size for x in params.values())
  report = Report(kind.name, coverage.table(), len(files.specs), size, notes)
  return Loaded(made, trees.unflatten(params), record, report)


def import_weights(
  path: Path, out: Path, *, family: str = "", tokenizer: str = ""
) -> Report:
  """Writes released weights as the checkpoint of step 0 of a new workdir.

  Nothing is written before all of it was read and found to fit.

  Args:
    path: a folder of weights, or a file.
    out: the workdir.
    family: "" = recognised.
    tokenizer: a file, or "starter"; "" = what lies beside the weights.

  Raises:
    UserError: the weights are damaged, of no known family or do not fit their
      config; or `out` holds a run.
  """
  if (out / workdirs.CONFIG_FILE).exists() or (out / "checkpoints").exists():
    raise errors.UserError(f"{out} holds a run; name another folder as --to.")
  loaded = load(path, family=family, tokenizer=tokenizer)
  made = loaded.experiment
  state = state_lib.create(
    {"params": loaded.params},
    optimizer=made.train_step.optimizer,
    trainable=made.trainable,
    ema=False,
    rng=jax.random.key(made.config.train.seed),
  )
  _save(made, state, out)
  (out / RECORD).write_text(json.dumps(loaded.record, indent=2) + "\n")
  return loaded.report


def export_weights(
  config: mlc.ConfigDict,
  workdir: Path,
  step: str,
  out: Path,
  *,
  family: str = "",
  dtype: str = "auto",
) -> Report:
  """Writes a run as a folder that `transformers` loads.

  Args:
    config: of the run.
    workdir: of the run.
    step: "latest", "best" or a number.
    out: folder to write.
    family: "" = that which the weights came from.
    dtype: "float32", "bfloat16" (rounds) or "auto": a tensor is as it was
      when it came if that loses nothing, else float32.

  Raises:
    UserError: the model is none of the family, or `out` has weights.
  """
  if dtype not in DTYPES:
    raise errors.unknown("dtype", dtype, DTYPES)
  if (out / tensors.SINGLE).exists():
    raise errors.UserError(f"{out} has weights; name another folder as --to.")
  recorded = read_record(workdir)
  name = family or recorded.get("family", "")
  if not name:
    raise errors.UserError(
      f"{workdir} was not converted from anything: say what it is to become, "
      f"--family=, one of {writable()}."
    )
  if name not in writable():
    raise errors.unknown("family to write", name, writable())
  params, kind = read_params(workdir, step), FAMILIES[name]
  same = recorded if recorded.get("family") == name else {}
  found = kind.origin(
    _spelled_out(config, workdir),
    {n: x.shape for n, x in params.items()},
    same.get("config", {}),
  )
  if kind.ending is not None and not same:
    end = TextTokenizer.load(workdir / workdirs.TOKENIZER_FILE).eos_id
    found = dataclasses.replace(
      found, config={**found.config, **kind.ending(end)}
    )
  rules, asked = kind.found_rules(found), same.get("dtypes", {})
  specs = {
    n: tensors.Spec(x.shape, stored_dtype(x, dtype, asked.get(n, "F32")))
    for n, x in mapping.back(rules, params)
  }
  arrays = (
    x.astype(tensors.DTYPES[specs[n].dtype])
    for n, x in mapping.back(rules, params)
  )
  out.mkdir(parents=True, exist_ok=True)
  for file, content in kind.beside(found).items():
    (out / file).write_text(json.dumps(content, indent=2) + "\n")
  tensors.write(out / tensors.SINGLE, specs, arrays)
  notes = export_tokenizer(workdir, out)
  rows = [
    mapping.Row(n, f"{s.dtype} {s.shape}", "", "", "") for n, s in specs.items()
  ]
  return Report(
    name, rows, len(specs), sum(x.size for x in params.values()), notes
  )


def export_file(workdir: Path, step: str, out: Path) -> Report:
  """Writes all parameters of a run under their own names, in float32."""
  if out.exists():
    raise errors.UserError(f"{out} is there; name another file as --to.")
  params = read_params(workdir, step)
  specs = {
    n: tensors.Spec(x.shape, tensors.NAMES[x.dtype]) for n, x in params.items()
  }
  out.parent.mkdir(parents=True, exist_ok=True)
  tensors.write(out, specs, params.values())
  rows = [
    mapping.Row(n, f"{s.dtype} {s.shape}", "", "", "") for n, s in specs.items()
  ]
  return Report(
    "safetensors", rows, len(specs), sum(x.size for x in params.values())
  )


def writable() -> list[str]:
  """Families that a workdir can become."""
  return sorted(name for name, family in FAMILIES.items() if family.writes)


def read_record(workdir: Path) -> dict[str, Any]:
  """Where a workdir's weights came from; empty if it was not converted."""
  path = workdir / RECORD
  return json.loads(path.read_text()) if path.is_file() else {}


def read_params(workdir: Path, step: str) -> dict[str, np.ndarray]:
  """The parameters of a checkpoint, by name; averaged, if it has averages."""
  saved = checkpoints.open_checkpoints(workdir)
  try:
    params, _ = saved.restore_params(checkpoints.which(step), averaged=None)
  finally:
    saved.close()
  return {n: np.asarray(x) for n, x in trees.flatten(params).items()}


def _config(
  kind: Family, found: Found, tokenizer: str
) -> tuple[mlc.ConfigDict, tuple[str, ...]]:
  """Our config of a model, whose every parameter is frozen."""
  sections, notes = kind.sections(found), []
  if "text" in sections["data"]:
    if not tokenizer:
      raise errors.UserError(
        "There is no tokenizer beside the weights: name one, --tokenizer=F."
      )
    loaded = TextTokenizer.load(tokenizer)
    sections["data"]["text"]["tokenizer"] = tokenizer
    rows = sections["model"]["vocab_size"]
    if loaded.vocab_size > rows:
      sections["model"]["vocab_size"] = loaded.vocab_size
      notes.append(
        f"The tokenizer has {loaded.vocab_size} tokens, the model {rows}: the "
        f"others ({', '.join(loaded.appended) or 'its last'}) are never said."
      )
  config = config_lib.from_plain(
    dict(
      stage="convert",
      # A stand-in for data of the user's own.
      data={"source": "synthetic", **sections["data"]},
      model=dict(sections["model"], precision="float32"),
      tasks=dict(main=dict(objectives=sections["objectives"])),
      train=dict(batch_size=8),
      finetune=dict(trainable=()),
    )
  )
  return settings_lib.resolve(config), tuple(notes)


def _spelled_out(config: mlc.ConfigDict, workdir: Path) -> dict[str, Any]:
  """A config as plain values, with what it leaves to its data and to names."""
  plain = config_lib.plain(config)
  model, data = plain["model"], plain["data"]
  if data["text"] and not model["vocab_size"]:
    tokenizer = TextTokenizer.load(workdir / workdirs.TOKENIZER_FILE)
    model["vocab_size"] = tokenizer.vocab_size
  towers = {**model["encoders"], "fusion": model["fusion"]}
  for section in (*towers.values(), *model["decoders"].values()):
    if section.get("size"):
      section["size"] = dataclasses.asdict(variants.resolve(section["size"]))
  for part in (model["encoders"], model["decoders"]):
    for name, ours, theirs in (
      ("image", "image_size", "size"),
      ("text", "max_tokens", "max_tokens"),
    ):
      if name in part and data[name]:
        part[name].setdefault(ours, data[name][theirs])
  return plain


def _save(made, state, out):
  """The files of a run at step 0."""
  config = made.config
  workdir = out.absolute()
  if config.data.text:
    workdir.mkdir(parents=True, exist_ok=True)
    workdirs.save_tokenizer(workdir, made)
    with config.unlocked():
      config.data.text.tokenizer = str(workdir / workdirs.TOKENIZER_FILE)
  workdirs.claim(workdir, config)
  target = checkpoint.Checkpointer(workdir / "checkpoints", async_=False)
  target.save(0, state, initial.checkpoint_meta(config, made, state, 0))
  target.close()


def _beside(path: Path) -> str:
  """The folder of the weights, if a tokenizer lies in it."""
  folder = path if path.is_dir() else path.parent
  names = tokenizer_files.IN_FOLDER
  return str(folder) if any((folder / n).is_file() for n in names) else ""


def stored_dtype(array: np.ndarray, asked: str, before: str) -> str:
  """What a tensor is written as."""
  if asked != "auto":
    return {"float32": "F32", "bfloat16": "BF16"}[asked]
  with np.errstate(over="ignore"):  # Of float16: not equal then.
    narrow = array.astype(tensors.DTYPES[before])
  return before if np.array_equal(narrow.astype(np.float32), array) else "F32"


def export_tokenizer(workdir: Path, out: Path) -> tuple[str, ...]:
  """Copies the tokenizer without what only mmjax reads of it."""
  path = workdir / workdirs.TOKENIZER_FILE
  if not path.is_file():
    return ()
  content = json.loads(path.read_text(encoding="utf-8"))
  if SENTENCEPIECE in content:
    return ("The tokenizer is a model of SentencePiece: copy its file.",)
  for name in (ROLES, CHAT, LAYOUT):
    content.pop(name, None)
  text = json.dumps(content, ensure_ascii=False)
  (out / workdirs.TOKENIZER_FILE).write_text(text, encoding="utf-8")
  return ()
