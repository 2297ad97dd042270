r"""Makes a workdir of released weights, and released weights of a workdir.

  mmjax convert --from=hf:bert-base-uncased/ --to=runs/bert
  mmjax convert --from=big_vision:S_16.npz --to=runs/vit_s16
  mmjax convert --from=open_clip:open_clip_model.safetensors --to=runs/clip
  mmjax convert --from=runs/mine --to=hf:mine/
  mmjax convert --from=runs/mine --to=safetensors:mine.safetensors
  mmjax convert --from=runs/mine --to=stablehlo:mine/

`hf:` is a folder with config.json and safetensors (of transformers or timm),
or such a file beside its config.json; `open_clip:` is a file beside its
open_clip_config.json. Nothing is downloaded, and nothing is
unpickled. The workdir can be evaluated and used, and started from:
--config.init.from_checkpoint=runs/bert. See docs/convert.md.
"""

from collections.abc import Sequence
from pathlib import Path

from mmjax.cli import arguments
from mmjax.cli.arguments import Flag
from mmjax.core import errors

SOURCES = ("hf", "big_vision", "open_clip")
TARGETS = ("hf", "safetensors", "stablehlo")
FLAGS = (
  Flag(
    "from",
    "",
    "hf:DIR, big_vision:F.npz, open_clip:F.safetensors, or a workdir",
    required=True,
  ),
  Flag(
    "to",
    "",
    "a workdir, hf:DIR, safetensors:FILE or stablehlo:DIR",
    required=True,
  ),
  Flag("family", "", "name of the family; default: recognised"),
  Flag("tokenizer", "", "file, or starter; default: beside the weights"),
  Flag("step", "latest", "checkpoint to export: latest, best or a step"),
  Flag("dtype", "auto", "to export: auto (as they came), float32, bfloat16"),
  Flag("outputs", "", "of stablehlo: names of programs, a,b; default: all"),
  Flag("params", "beside", "of stablehlo: beside the programs, or inside"),
)


def main(argv: Sequence[str]) -> int:
  """Runs the verb."""
  rest, overrides = arguments.split_overrides(argv)
  flags = arguments.parse(__doc__, FLAGS, rest)
  source, start = _split("from", flags["from"].value, SOURCES)
  target, end = _split("to", flags.to, TARGETS)
  if bool(source) == bool(target):
    raise errors.UserError(
      "One of --from and --to is a workdir, the other begins with one of "
      f"{[f'{s}:' for s in SOURCES]} or {[f'{s}:' for s in TARGETS]}; got "
      f"--from={flags['from'].value} --to={flags.to}."
    )
  for name in ("step", "dtype") if source else ("tokenizer",):
    if flags[name].present:
      raise errors.UserError(
        f"--{name} is for {'exports' if source else 'imports'} only."
      )
  if target != "stablehlo":
    given = [f"--{n}" for n in ("outputs", "params") if flags[n].present]
    for name in (*given, *overrides):
      raise errors.UserError(f"{name} is for --to=stablehlo:DIR only.")
  from mmjax.cli import backend

  backend.set_up()
  arguments.ready_for_grain()
  report = _run(flags, source, target, start, end, overrides)
  _show(report, flags.to)
  return 0


def _run(flags, source, target, start, end, overrides):
  from mmjax.build import converting, stablehlo

  if source:
    named = flags.family or ("open_clip" if source == "open_clip" else "")
    return converting.import_weights(
      start, end, family=named, tokenizer=flags.tokenizer
    )
  if target == "safetensors":
    return converting.export_file(start, flags.step, end)
  config = arguments.load_saved(start, overrides)
  if target == "stablehlo":
    return stablehlo.export(
      config,
      start,
      flags.step,
      end,
      outputs=[n.strip() for n in flags.outputs.split(",") if n.strip()],
      params=flags.params,
      dtype=flags.dtype,
    )
  return converting.export_weights(
    config, start, flags.step, end, family=flags.family, dtype=flags.dtype
  )


def _split(flag: str, address: str, schemes: tuple[str, ...]):
  """Scheme and path; no scheme is a workdir."""
  scheme, separator, path = address.partition(":")
  if not separator or "/" in scheme:
    return "", Path(address).expanduser()
  if scheme not in schemes or not path:
    raise errors.UserError(
      f"--{flag}={address}: expected a workdir, or one of "
      f"{[f'{s}:PATH' for s in schemes]}.{errors.nearest(scheme, schemes)}"
    )
  return scheme, Path(path).expanduser()


def _show(report, target: str) -> None:
  rows = [
    (r.theirs, r.their_shape, r.ours, r.our_shape, r.how) for r in report.rows
  ]
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  for row in rows:
    cells = (c.ljust(w) for c, w in zip(row, widths, strict=True) if w)
    print("  ".join(cells).rstrip())
  print(
    f"{report.family}: all of {report.num_tensors} tensors and of "
    f"{report.num_params:,} numbers accounted for; {target}"
  )
  for note in report.notes:
    print(note)
