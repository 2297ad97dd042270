"""What docs/plug_in.md shows works, from an empty folder."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "plug_in.md").read_text()


def block(name):
  pattern = rf"<!-- test: {re.escape(name)} -->\n```python\n(.*?)```"
  return re.search(pattern, PAGE, re.S).group(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp("mine")
  for name in ("twins.py", "config.py"):
    (folder / name).write_text(block(name))
  return folder


@pytest.fixture
def mmjax(folder):
  def run(*args):
    return subprocess.run(
      [sys.executable, "-m", "mmjax", *args],
      cwd=folder,
      env={**os.environ, "PYTHONPATH": str(ROOT)},
      capture_output=True,
      text=True,
      check=False,
    )

  return run


def test_the_objective_is_barlow_twins(monkeypatch, folder, rng):
  monkeypatch.syspath_prepend(folder)
  import twins

  a, b = rng.normal(size=(2, 6, 3)).astype(np.float32)
  vectors = {"twin_image": a, "twin_text": b}
  objective = twins.BarlowTwins(dim=3, off_diagonal=0.1)

  def apply(method, name, *args):
    return jnp.asarray(vectors[name]) if method == "head" else name

  batch = {"example_mask": jnp.arange(6) < 5}
  term, metrics = objective(apply, batch, rng=jax.random.key(0), train=True)

  # Pearson's correlation of the five examples that count.
  c = np.corrcoef(a[:5], b[:5], rowvar=False)[:3, 3:]
  cost = np.sum((1 - np.diag(c)) ** 2)
  cost += 0.1 * (np.sum(c**2) - np.sum(np.diag(c) ** 2))
  assert float(term.weight) == 5
  np.testing.assert_allclose(float(term.total), 5 * cost, rtol=1e-3)
  correlation = float(metrics["correlation"].total)
  assert correlation == pytest.approx(np.trace(c) / 3, rel=1e-3)


@pytest.mark.slow
def test_the_check_of_the_page_passes(mmjax):
  done = mmjax("check", "objective", "twins:BarlowTwins")
  assert done.returncode == 0, done.stdout + done.stderr
  assert done.stdout.count(" ok ") == 6
  assert "none declared" in done.stdout


@pytest.mark.slow
def test_the_run_of_the_page_learns(mmjax, folder):
  done = mmjax("train", "--config=config.py", "--workdir=run")
  assert done.returncode == 0, done.stdout + done.stderr
  lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
  rows = [row for row in map(json.loads, lines) if row["kind"] == "train"]
  assert rows[-1]["twins/loss"] < 0.8 * rows[0]["twins/loss"]
