import json

import jax
import ml_collections as mlc
import numpy as np
import pytest

from mmjax.bench import own_step, steps, tables
from mmjax.build import experiment, initial, settings
from mmjax.cli import main
from mmjax.core import errors

CONFIG = """
import ml_collections as mlc


def get_config(arg=""):
  c = mlc.ConfigDict()
  c.data = dict(
    source="synthetic", image=dict(size=16), label=dict(field="group")
  )
  size = dict(embed_dim=16, num_layers=1, num_heads=2, mlp_dim=32)
  c.model = dict(
    encoders=dict(image=dict(name="vit", patch_size=8, size=size))
  )
  c.tasks = dict(main=dict(objectives=dict(label=dict(name="classification"))))
  c.train = dict(num_steps=10, batch_size=8)
  if arg == "empty":
    c.tasks = {}
  return c
"""
GIB = 2.0**30
FREE = 10 * GIB


@pytest.fixture
def file(tmp_path):
  path = tmp_path / "tiny.py"
  path.write_text(CONFIG)
  return path


@pytest.fixture(scope="module")
def config():
  scope = {}
  exec(CONFIG, scope)
  made = settings.resolve(mlc.ConfigDict(scope["get_config"]()))
  made.mesh.data = 1
  return made


@pytest.fixture
def one_device(monkeypatch):
  """As a candidate's process has it."""
  prepare = experiment.prepare
  monkeypatch.setattr(
    experiment, "prepare", lambda config: prepare(config, jax.devices()[:1])
  )
  return prepare


@pytest.fixture(scope="module")
def timed(config):
  """The step in float32, with one device, and what `fits` was told."""
  told, prepare = {}, experiment.prepare
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(
      experiment, "prepare", lambda config: prepare(config, jax.devices()[:1])
    )
    patch.setattr(
      own_step, "fits", lambda size, **given: told.update(given, size=size)
    )
    return own_step.OwnStep(config.to_dict(), "float32"), told


def test_the_memory_of_a_step_is_its_state_batch_results_and_what_is_between(
  timed,
):
  timed, told = timed
  state, batch = (
    sum(x.nbytes for x in jax.tree.leaves(tree))
    for tree in (timed._state, timed._batch)
  )
  facts = timed.facts
  assert facts["argument_bytes"] == pytest.approx(state + batch, rel=0.02)
  # The new state takes the place of the old one: the metrics are left.
  assert facts["output_bytes"] < 0.1 * state
  assert told["size"] == 8 and told["free"] > 0
  assert told["fixed"] == pytest.approx(state, rel=0.02)
  assert told["total"] == (
    facts["argument_bytes"] + facts["output_bytes"] + facts["temp_bytes"]
  )


def test_the_step_is_that_of_training(config, one_device, timed):
  timed, _ = timed
  timed.run(2)

  config = mlc.ConfigDict(config.to_dict())
  config.model.precision = "float32"
  made = one_device(config, jax.devices()[:1])
  state, _ = initial.initial_state(config, made)
  pipeline = made.parts.pipelines["main"]
  rows = [pipeline.example(i, 0, 0, train=True) for i in range(8)]
  batch = {k: np.stack([row[k] for row in rows]) for k in pipeline.specs}
  losses = []
  for _ in range(8):
    state, metrics = made.run_step(state, made.put({"main": batch}))
    losses.append(float(metrics["loss"].mean))
  np.testing.assert_allclose(timed.facts["losses"], losses, rtol=1e-5)
  assert losses[0] == pytest.approx(np.log(4), rel=1e-4)  # Four shapes.
  assert int(timed._state.step) == 8 + 2
  assert timed.facts["params"] == made.num_params()[0]
  assert timed.facts["temp_bytes"] > 0


def test_real_batches_differ_and_one_batch_does_not(config, one_device):
  seen = {}
  for real in (False, True):
    timed = own_step.OwnStep(config.to_dict(), "float32", real_input=real)
    compiled, seen[real] = timed._compiled, []

    def watched(state, batch, compiled=compiled, own=seen[real]):
      own.append(np.asarray(batch["main"]["image"]))
      return compiled(state, batch)

    timed._compiled = watched
    timed.run(2)
    timed.close()
  assert np.array_equal(*seen[False])
  assert not np.array_equal(*seen[True])


def test_a_batch_that_does_not_fit_says_which_does():
  own_step.fits(8, fixed=1.0, total=FREE, free=FREE)
  own_step.fits(8, fixed=1.0, total=FREE + 1.0, free=0.0)  # Nothing is known.
  with pytest.raises(errors.UserError) as caught:
    # 2 GiB and 0.5 for each: 18 GiB of 32, 16 of them fit into 10.
    own_step.fits(32, fixed=2 * GIB, total=18 * GIB, free=FREE)
  assert "batch_size=32 needs 18.0 GiB" in str(caught.value)
  assert "10.0 GiB are free" in str(caught.value)
  assert "the largest batch that fits is about 16;" in str(caught.value)
  with pytest.raises(errors.UserError, match="not even one example"):
    own_step.fits(1, fixed=2 * FREE, total=3 * FREE, free=FREE)


def test_too_large_a_step_is_refused_before_it_runs(
  config, one_device, monkeypatch
):
  monkeypatch.setattr(own_step.memory_lib, "free_bytes", lambda device: 1000.0)
  with pytest.raises(errors.UserError, match=r"train.batch_size=8 needs"):
    own_step.OwnStep(config.to_dict(), "float32")


def test_mfu_divides_by_the_product_of_the_same_round():
  task = steps.Work("other", 4, image_size=16, patch_size=8)
  own = steps.rounds.Result(
    "mmjax float32", (10.0, 5.0, 8.0), facts={"flops": 6e9}
  )
  peak = steps.rounds.Result(
    "large product float32", (20.0, 5.0, 10.0), facts={"flops": 12e9}
  )
  found = steps.figures([own, peak], {own.name: task})["mmjax float32"]
  # Half of the product's FLOPs; rates are to each other as 0.5, 1 and 0.8.
  assert found["mfu"] == pytest.approx(0.8 * 0.5)
  assert found["examples_per_sec"] == 8.0 * 4
  assert found["tokens_per_sec"] == 8.0 * 4 * 4
  assert found["flops_per_sec"] == 8.0 * 6e9


def test_losses_are_compared_with_those_of_float32():
  assert steps.parity([2.0, 1.01], [2.0, 1.0]) == pytest.approx(0.01)
  exact = steps.rounds.Result("x float32", (1.0,), facts={"losses": [2.0, 1.0]})
  fast = steps.rounds.Result(
    "x bfloat16", (1.0,), facts={"losses": [2.0, 1.01]}
  )
  task = steps.Work("other", 1)
  found = steps.figures([exact, fast], {"x float32": task, "x bfloat16": task})
  assert tables.losses(found["x bfloat16"]) == "±1.0e-02 OFF"
  assert tables.losses(found["x float32"]) == "2.000>1.000"


@pytest.mark.parametrize(
  "kind, flops",
  [
    ("NVIDIA H100 80GB HBM3", 989e12),
    ("NVIDIA H200", 989e12),
    ("TPU v5 lite", 197e12),
    ("TPU v6 lite", 918e12),
    ("cpu", None),
  ],
)
def test_datasheets_are_found_by_the_name_of_the_device(kind, flops):
  assert steps.datasheet(kind) == flops


@pytest.mark.parametrize(
  "flags, message",
  [
    ([], "either --config=FILE, or --suite"),
    (["--config={f}", "--suite=cpu"], "either --config=FILE, or --suite"),
    (["--config={f}", "--peer=tim"], "Did you mean 'timm'"),
    (["--config={f}", "--peer=lean:x"], "'lean' has no variants"),
    (["--config={f}", "--precision=float16"], "Unknown precision 'float16'"),
    (["--config={f}", "--rounds=0"], "rounds=0, expected at least 1"),
    (["--config={f}", "--secs=0"], "secs=0, expected more than 0"),
    (["--config={f}:empty"], "config.tasks is empty: nothing to train"),
    (["--config={f}", "--config.train.batchsize=2"], "batch_size"),
    (["--suite=gpus"], "Did you mean 'gpu'"),
    (["--suite=cpu", "--rows=19"], "Unknown row '19'"),
    (["--suite=cpu", "--peer=tim"], "Did you mean 'timm'"),
    (["dta"], "Did you mean 'bench data'"),
  ],
  ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_message(flags, message, file, capsys):
  status = main.main(["bench", *(f.replace("{f}", str(file)) for f in flags)])
  out, err = capsys.readouterr()
  assert status == 2 and not out
  assert message in err and "Traceback" not in err


@pytest.mark.slow
def test_bench_times_a_config(file, tmp_path, capsys):
  figures = tmp_path / "made" / "bench.json"
  status = main.main(
    [
      "bench",
      f"--config={file}",
      "--config.mesh.data=-1",
      "--precision=float32",
      "--rounds=2",
      "--secs=0.05",
      f"--json={figures}",
    ]
  )
  out, err = capsys.readouterr()
  assert status == 0, err
  found = json.loads(figures.read_text())
  own = found["candidates"]["mmjax float32"]
  assert len(own["rates"]) == 2 and own["compile_secs"] > 0
  assert own["flops_per_sec"] == pytest.approx(
    own["flops"] * own["steps_per_sec"]
  )
  assert 0 < own["mfu"] < 1
  assert "mmjax, its own data float32 / mmjax float32" in found["ratios"]
  assert "mmjax float32" in out and "image_classification, 8 examples" in out


def test_a_timed_run_waits_for_its_last_step():
  log = []

  class Array:
    def block_until_ready(self):
      log.append("wait")
      return self

  def compiled(state, batch):
    log.append("step")
    return state, {"loss": Array()}

  timed = own_step.OwnStep.__new__(own_step.OwnStep)
  timed._batches, timed._batch, timed._state = None, {}, ()
  timed._compiled = compiled
  timed.run(3)
  assert log == ["step"] * 3 + ["wait"]


@pytest.mark.parametrize("platform, count", [("gpu", 4), ("cpu", 1)])
def test_mfu_is_of_all_devices_but_those_that_a_cpu_pretends(platform, count):
  facts = dict(
    flops=6e12, num_devices=4, platform=platform, device="NVIDIA H100 PCIe"
  )
  own = steps.rounds.Result("mmjax bfloat16", (10.0, 10.0), facts=facts)
  peak = steps.rounds.Result(
    "large product bfloat16", (20.0, 20.0), facts={"flops": 12e12}
  )
  # Of the other precision: not what is divided by.
  other = steps.rounds.Result(
    "large product float32", (1.0, 1.0), facts={"flops": 12e12}
  )
  task = steps.Work("other", 1)
  found = steps.figures([own, other, peak], {own.name: task})[own.name]
  assert found["mfu"] == pytest.approx(0.5 * 0.5 / count)
  assert found["mfu_datasheet"] == pytest.approx(10 * 6e12 / (4 * 989e12))


def test_ratios_are_of_mmjax_to_others_and_to_itself():
  rates = {
    "timm float32": 2.0,
    "mmjax float32": 3.0,
    "large product float32": 9.0,
    "timm bfloat16": 4.0,
    "mmjax bfloat16": 12.0,
    "large product bfloat16": 9.0,
    "mmjax, its own data bfloat16": 6.0,
  }
  results = [steps.rounds.Result(n, (r, r)) for n, r in rates.items()]
  found = steps._ratios(results, ["float32", "bfloat16"])
  assert {name: ratio["median"] for name, ratio in found.items()} == {
    "mmjax float32 / timm float32": 3 / 2,
    "mmjax bfloat16 / timm bfloat16": 12 / 4,
    "mmjax, its own data bfloat16 / mmjax bfloat16": 6 / 12,
    "mmjax bfloat16 / mmjax float32": 12 / 3,
  }
