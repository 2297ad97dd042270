"""Programs of a trained model that run where mmjax is not: StableHLO.

A folder with a program for each thing that the model gives, the parameters
that all of them read, and `run.py`, which runs them by jax and numpy alone
(jax needs flatbuffers to read a program).
Programs take any number of examples and run on CPUs, GPUs and TPUs.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.export
import ml_collections as mlc
import numpy as np

from mmjax.build import converting
from mmjax.build import experiment as experiment_lib
from mmjax.build import parts as parts_lib
from mmjax.build import programs as programs_lib
from mmjax.convert import mapping, tensors
from mmjax.core import errors, trees

PLATFORMS = ("cpu", "cuda", "tpu")
PLACES = ("beside", "inside")  # Where parameters are.
ENDING = ".stablehlo"
PARAMS = "params.safetensors"
SCRIPT = "run.py"
RUN = r'''"""Runs a program that mmjax exported: pip install jax flatbuffers

  python run.py PROGRAM inputs.npz outputs.npz

{programs}
b is any number of examples; `*_mask`: True = counts.
"""
import json, pathlib, sys
import jax, jax.export, ml_dtypes, numpy as np

HERE = pathlib.Path(__file__).parent
DTYPES = {{"F32": "f4", "F16": "f2", "BF16": ml_dtypes.bfloat16}}

def read(path):  # Of safetensors: a length, a header in JSON, the numbers.
  data = np.memmap(path, np.uint8, "r")
  start = 8 + int(data[:8].view("<u8")[0])
  header = json.loads(data[8:start].tobytes())
  header.pop("__metadata__")
  return {{n: data[start + h["data_offsets"][0] : start + h["data_offsets"][1]]
             .view(DTYPES[h["dtype"]]).reshape(h["shape"])
          for n, h in header.items()}}

name, inputs, outputs = sys.argv[1:]
program = jax.export.deserialize((HERE / f"{{name}}{ending}").read_bytes())
arguments = {arguments}
np.savez(outputs, **jax.jit(program.call)(*arguments))
'''
NEXT = "\n    -> "
MOST_INSIDE = 2 * 10**9  # Bytes; what is serialized has 32-bit offsets.


def export(
  config: mlc.ConfigDict,
  workdir: Path,
  step: str,
  out: Path,
  *,
  outputs: Sequence[str] = (),
  params: str = "beside",
  dtype: str = "auto",
) -> converting.Report:
  """Writes programs of a run.

  Precision "auto" is float32 here: the same on all platforms.

  Args:
    config: of the run.
    workdir: of the run.
    step: "latest", "best" or a number.
    out: folder to write.
    outputs: names of programs, see `programs.py`; () = all.
    params: "beside": one file for all programs, which take them as their first
      argument; "inside": a program has its own.
    dtype: of parameters, see `converting.export_weights`.

  Raises:
    UserError: no such program, too many parameters to be inside, or `out` is
      there.
  """
  if params not in PLACES:
    raise errors.unknown("place of parameters", params, PLACES)
  if dtype not in converting.DTYPES:
    raise errors.unknown("dtype", dtype, converting.DTYPES)
  if out.exists() and (not out.is_dir() or any(out.iterdir())):
    raise errors.UserError(f"{out} is there; name another folder as --to.")
  with config.unlocked():
    if config.model.precision == "auto":
      config.model.precision = "float32"
    for stack in experiment_lib.stacks(config).values():
      stack.attention = "xla"  # The same on all platforms too.
  made = experiment_lib.prepare(config)
  names = trees.flatten(made.abstract_state.params)
  wanted = _wanted(programs_lib.programs(made.parts, names), outputs)
  arrays = _stored(converting.read_params(workdir, step), dtype, workdir)
  size = sum(x.nbytes for x in arrays.values())
  if params == "inside" and size > MOST_INSIDE:
    raise errors.UserError(
      f"{size:,} bytes of parameters are too many to be inside a program "
      f"({MOST_INSIDE:,} at most): use --params=beside."
    )
  exported = {
    name: compiled(made.parts, program, arrays, inside=params == "inside")
    for name, program in wanted.items()
  }
  return _write(workdir, out, exported, arrays, inside=params == "inside")


def _wanted(known: Mapping[str, programs_lib.Program], outputs: Sequence[str]):
  for name in outputs:
    if name not in known:
      raise errors.unknown("output", name, known)
  if not known:
    raise errors.UserError("This model gives nothing that one pass computes.")
  return {name: known[name] for name in outputs or known}


def _stored(params, dtype, workdir):
  """Parameters as they are written: in few bytes where that loses nothing."""
  narrow = set(converting.read_record(workdir).get("dtypes", {}).values())
  made = {}
  for name, x in params.items():
    kinds = [
      converting.stored_dtype(x, dtype, before)
      for before in ("BF16", "F16", "F32")
      if before in narrow or before == "F32"
    ]
    kind = next((k for k in kinds if k != "F32"), "F32")
    made[name] = x.astype(tensors.DTYPES[kind])
  return made


def compiled(
  parts: parts_lib.Parts,
  program: programs_lib.Program,
  params: Mapping[str, np.ndarray],
  *,
  inside: bool = False,
) -> jax.export.Exported:
  """A program for all platforms, of (params, inputs), or with them inside."""
  (b,) = jax.export.symbolic_shape("b")
  inputs = {
    name: jax.ShapeDtypeStruct((b, *spec.shape), spec.dtype)
    for name, spec in program.specs(parts).items()
  }

  function, given = program.function(parts), (params, inputs)
  if inside:
    function, given = functools.partial(function, params), (inputs,)
  made = jax.export.export(jax.jit(function), platforms=PLATFORMS)
  return made(*given)


def _write(workdir, out, exported, params, *, inside) -> converting.Report:
  """The files of the folder."""
  out.mkdir(parents=True, exist_ok=True)
  for name, program in exported.items():
    (out / f"{name}{ENDING}").write_bytes(program.serialize())
  lines = [_described(name, program) for name, program in exported.items()]
  inputs, arguments = "dict(np.load(inputs))", "({inputs},)"
  if not inside:
    specs = {
      n: tensors.Spec(x.shape, tensors.NAMES[x.dtype])
      for n, x in params.items()
    }
    tensors.write(out / PARAMS, specs, params.values())
    arguments = f'(read(HERE / "{PARAMS}"), {{inputs}})'
  text = RUN.format(
    programs="\n".join(f"  {x.replace(' -> ', NEXT)}" for x in lines),
    ending=ENDING,
    arguments=arguments.format(inputs=inputs),
  )
  (out / SCRIPT).write_text(text)
  notes = converting.export_tokenizer(workdir, out)
  rows = [
    mapping.Row(n, f"{tensors.NAMES[x.dtype]} {x.shape}", "", "", "")
    for n, x in params.items()
  ]
  size = sum(x.size for x in params.values())
  return converting.Report(
    "stablehlo", rows, len(params), size, (*lines, *notes)
  )


def _described(name: str, program: jax.export.Exported) -> str:
  """Inputs and outputs of a program, in a line."""
  (*_, inputs), _ = jax.tree.unflatten(program.in_tree, program.in_avals)
  made = jax.tree.unflatten(program.out_tree, program.out_avals)

  def listed(avals: Mapping[str, Any]) -> str:
    return ", ".join(
      f"{n} {x.dtype} {' x '.join(map(str, x.shape))}" for n, x in avals.items()
    )

  return f"{name}: {listed(inputs)} -> {listed(made)}"
