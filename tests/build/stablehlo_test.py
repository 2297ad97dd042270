"""Programs that run without mmjax, against the model that they are of."""

import functools
import subprocess
import sys

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.build import converting, experiment, stablehlo
from mmjax.build import programs as programs_lib
from mmjax.cli import arguments, main
from mmjax.convert import tensors
from mmjax.core import errors, trees
from tests.convert import tiny_bert
from tests.convert.tiny_bert import SHAPES, N, V

pytestmark = pytest.mark.slow  # Each exports programs, for three platforms.

REFUSED = ("mmjax", "flax", "optax", "orbax", "safetensors", "torch")
RUN = f"""
import runpy, sys

class Refuse:
  def find_spec(self, name, path=None, target=None):
    if name.split(".")[0] in {REFUSED!r}:
      raise ImportError(name + " is imported without need")

sys.meta_path.insert(0, Refuse())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
  """A workdir of a tiny BERT, of whose tensors one is bfloat16."""
  base = tmp_path_factory.mktemp("bert")
  tiny_bert.write(base / "hf")
  converting.import_weights(base / "hf", base / "run")
  return base / "run"


@pytest.fixture(scope="module")
def programs(bert, tmp_path_factory):
  """Its programs, and what `export` says of them."""
  out = tmp_path_factory.mktemp("programs") / "out"
  config = arguments.load_saved(bert, [])
  return out, stablehlo.export(config, bert, "latest", out)


@pytest.fixture(scope="module")
def texts():
  rng = np.random.default_rng(0)
  mask = np.arange(N) < np.array([[N], [7], [3]])
  ids = rng.integers(5, V, (3, N), dtype=np.int32)
  return {"text": np.where(mask, ids, 0).astype(np.int32), "text_mask": mask}


@pytest.fixture(scope="module")
def expected(bert, texts):
  """Of the model as it is in the workdir."""
  loaded = converting.load(bert.parent / "hf")
  model, variables = loaded.experiment.parts.model, {"params": loaded.params}
  given = jnp.asarray(texts["text"]), jnp.asarray(texts["text_mask"])
  sequence = model.apply(
    variables, "text", given[0], mask=given[1], train=False, method="encode"
  )
  pooled = model.apply(variables, "text", sequence, method="pool")
  return {"tokens": sequence.x, "mask": given[1], "pooled": pooled}


def _same(found, expected):
  assert set(found) == set(expected)
  for name, array in expected.items():
    np.testing.assert_allclose(
      found[name], array, rtol=1e-5, atol=1e-5, err_msg=name
    )


def test_the_script_runs_them_by_jax_and_numpy_alone(
  programs, texts, expected, tmp_path
):
  out, report = programs
  assert sorted(f.name for f in out.iterdir()) == [
    "params.safetensors",
    "run.py",
    "text.stablehlo",
    "tokenizer.json",
  ]
  assert report.notes[0].startswith(f"text: text int32 b x {N}, text_mask")
  script = (out / "run.py").read_text()
  code = script.split('"""', 2)[2]
  assert len([line for line in code.splitlines() if line.strip()]) <= 20
  assert report.notes[0].partition(" -> ")[0] in script

  np.savez(tmp_path / "in.npz", **texts)
  argv = [out / "run.py", "text", tmp_path / "in.npz", tmp_path / "out.npz"]
  done = subprocess.run(
    [sys.executable, "-c", RUN, *map(str, argv)],
    cwd=tmp_path,
    capture_output=True,
    text=True,
  )

  assert done.returncode == 0, done.stderr
  with np.load(tmp_path / "out.npz") as found:
    _same(dict(found), expected)


def test_it_takes_any_number_of_examples_on_all_platforms(
  programs, texts, expected
):
  out, _ = programs
  program = jax.export.deserialize((out / "text.stablehlo").read_bytes())
  params = _read(out)
  assert set(program.platforms) == {"cpu", "cuda", "tpu"}
  for count in (1, 2):
    few = {name: x[:count] for name, x in texts.items()}
    found = program.call(params, few)
    _same(found, {name: x[:count] for name, x in expected.items()})


def _read(folder):
  file = tensors.Safetensors(folder / "params.safetensors")
  return {name: file.read(name) for name in file.specs}


def test_parameters_are_written_as_they_came_or_as_asked(
  bert, programs, tmp_path
):
  out, report = programs
  params = converting.read_params(bert, "latest")
  found = _read(out)
  assert set(found) == set(params)
  table = "encoders_text/stem/tokens/table"
  assert {n for n, x in found.items() if x.dtype != np.float32} == {table}
  assert found[table].dtype == tensors.DTYPES["BF16"]
  for name, array in params.items():  # Bit for bit.
    np.testing.assert_array_equal(found[name].astype(np.float32), array)
  assert report.num_params == sum(np.prod(shape) for shape in SHAPES.values())
  config = arguments.load_saved(bert, [])
  for dtype in ("float32", "bfloat16"):
    stablehlo.export(config, bert, "latest", tmp_path / dtype, dtype=dtype)
    kinds = {str(x.dtype) for x in _read(tmp_path / dtype).values()}
    assert kinds == {dtype}


def test_outputs_are_of_types_that_npz_has(bert, texts):
  config = arguments.load_saved(bert, ["--config.model.precision=bfloat16"])
  made = experiment.prepare(config)
  params = converting.read_params(bert, "latest")
  program = programs_lib.programs(made.parts, params)["text"]

  out = jax.eval_shape(program.function(made.parts), params, texts)

  assert {str(x.dtype) for x in out.values()} == {"float32", "bool"}


def test_parameters_may_be_inside(bert, texts, expected, tmp_path):
  out = tmp_path / "out"
  argv = [f"--from={bert}", f"--to=stablehlo:{out}", "--params=inside"]
  length = "--config.data.text.max_tokens=10"
  assert main.main(["convert", *argv, "--outputs=text", length]) == 0

  assert not (out / "params.safetensors").exists()
  program = jax.export.deserialize((out / "text.stablehlo").read_bytes())
  shorter = {name: x[1:, :10] for name, x in texts.items()}
  found = program.call(shorter)
  assert found["tokens"].shape[1] == 10
  np.testing.assert_allclose(
    found["pooled"], expected["pooled"][1:], rtol=1e-5, atol=1e-5
  )
  assert "arguments = (dict(np.load(inputs)),)" in (out / "run.py").read_text()


def test_heads_and_the_shared_space_have_theirs(resolve):
  tower = dict(embed_dim=16, num_layers=1, num_heads=2, mlp_dim=32)

  def edit(config):
    config.data = dict(
      source="synthetic",
      image=dict(size=16),
      text=dict(max_tokens=8, mask=dict(rate=0.3)),
      label=dict(field="group"),
    )
    config.model = dict(
      precision="auto",
      shared_dim=8,
      encoders=dict(
        image=dict(name="vit", patch_size=8, size=tower),
        text=dict(name="text", size=tower),
      ),
      fusion=dict(name="joint", size=tower),
      decoders=dict(text=dict(name="text", size=tower)),
    )
    objectives = dict(
      align=dict(name="contrastive"),
      group=dict(name="classification"),
      words=dict(name="masked_lm"),
      say=dict(name="captioning"),
    )
    config.tasks = dict(main=dict(objectives=objectives))
    config.finetune = {}

  made = experiment.prepare(resolve("finetune", edit))
  rng = np.random.default_rng(0)
  params = {
    name: rng.normal(0, 0.4, x.shape).astype(np.float32)
    for name, x in trees.flatten(made.abstract_state.params).items()
  }
  known = programs_lib.programs(made.parts, params)
  both = {"image", "text"}
  assert {name: set(program.reads) for name, program in known.items()} == dict(
    image={"image"}, text={"text"}, label={"image"}, mlm=both, lm=both
  )

  inputs = dict(
    image=rng.integers(0, 256, (2, 16, 16, 3), np.uint8),
    text=rng.integers(5, 20, (2, 8), dtype=np.int32),
    text_mask=np.arange(8) < np.array([[8], [5]]),
  )

  def run(name):
    program = stablehlo.compiled(made.parts, known[name], params)
    fields = known[name].specs(made.parts)
    return program.call(params, {n: inputs[n] for n in fields})

  @jax.jit
  def expected(params, inputs):
    variables = {"params": trees.unflatten(params)}
    apply = functools.partial(made.parts.model.apply, variables)
    encode = functools.partial(apply, train=False, method="encode")
    image = encode("image", inputs["image"])
    text = encode("text", inputs["text"], mask=inputs["text_mask"])
    pooled = apply("image", image, method="pool")
    fused = apply({"image": image, "text": text}, train=False, method="fuse")
    said = apply(
      "text",
      inputs["text"],
      {"image": image},
      mask=inputs["text_mask"],
      train=False,
      method="decode",
    )
    return dict(
      shared=apply("image", image, method="project"),
      label=apply("label", pooled, method="head"),
      mlm=apply("mlm", fused["text"].content, method="head"),
      lm=apply("lm", said.content, method="head"),
    )

  found = {name: run(name)["logits"] for name in ("label", "mlm", "lm")}
  _same(found | {"shared": run("image")["shared"]}, expected(params, inputs))


def test_what_cannot_be_exported_is_refused(bert, programs, tmp_path, capsys):
  config = arguments.load_saved(bert, [])
  for more, said in (
    (dict(out=programs[0]), "is there; name another folder as --to"),
    (dict(outputs=["txt"]), "Unknown output 'txt'. Did you mean 'text'"),
    (dict(params="outside"), "Unknown place of parameters 'outside'"),
    (dict(dtype="int8"), "Unknown dtype 'int8'"),
  ):
    given = {"out": tmp_path / "out", **more}
    with pytest.raises(errors.UserError, match=said):
      stablehlo.export(config, bert, "latest", **given)
  argv = ["convert", f"--from={bert}", f"--to=hf:{tmp_path}/hf"]
  assert main.main([*argv, "--params=inside"]) == 2
  assert "--params is for --to=stablehlo:DIR only" in capsys.readouterr().err
  assert not list(tmp_path.iterdir())
