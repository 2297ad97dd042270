import json
import os

import pytest


@pytest.fixture(autouse=True)
def _no_trace(monkeypatch):
  """The verb asks for fake devices by variables that processes inherit."""
  for name in ("JAX_NUM_CPU_DEVICES", "XLA_FLAGS"):
    before = os.environ.get(name)
    monkeypatch.setenv(name, before or "")  # So that it is put back.
    if before is None:
      monkeypatch.delenv(name)


def test_plan_prints_tables_and_writes_files(mmjax, tiny, tmp_path):
  out = tmp_path / "deep" / "plan.json"
  page = tmp_path / "plan.md"

  result = mmjax(
    "plan", tiny("tokenizer"), "--topology=h100:2", f"--json={out}",
    f"--markdown={page}", "--config.optimizer.warmup_steps=0",
  )  # fmt: skip

  assert result.status == 0, result
  assert "h100:2: 2 x H100, mesh data 2, rules data_parallel" in result.out
  assert "memory: fits" in result.out and "MFU" in result.out
  numbers = json.loads(out.read_text())
  assert numbers["fits"] and numbers["chips"] == 2
  assert numbers["memory"]["total"] > numbers["memory"]["parameters"] > 0
  (reduced,) = [c for c in numbers["collectives"] if c["kind"] == "all-reduce"]
  assert reduced["axes"] == ["data"]
  assert page.read_text().strip() in result.out


def test_bad_plans_are_refused_in_one_message(refused, tiny):
  config = tiny("tokenizer")

  assert "'v5e'" in refused("plan", config, "--topology=v5:4x4")
  assert "--topology is missing" in refused("plan", config)
  mesh = refused("plan", config, "--topology=cpu:8", "--config.mesh.data=3")
  assert "takes 3 devices, there are 8. Sizes that fit: [1, 2, 4, 8]" in mesh
  batch = refused(
    "plan", config, "--topology=cpu:8", "--config.train.batch_size=12"
  )
  assert "e.g. 8 or 16" in batch
  sweep = refused("plan", config, "--topology=cpu:8", "--sweep", "--remat=dot")
  assert "Did you mean 'dots'" in sweep
  sizes = refused("plan", config, "--topology=cpu:8", "--sweep", "--fsdp=a")
  assert "--fsdp=a, expected numbers" in sizes
