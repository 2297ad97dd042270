"""What the README shows runs, and what it points at is there."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core import registry
from mmjax.core.interfaces import ModelInfo, Objective

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


@pytest.fixture
def plug_in(tmp_path, monkeypatch):
  code = re.search(r"<!-- test: plug-in -->\n```python\n(.*?)```", README, re.S)
  (tmp_path / "my_objective.py").write_text(code.group(1))
  monkeypatch.syspath_prepend(tmp_path)
  monkeypatch.delitem(__import__("sys").modules, "my_objective", raising=False)
  cls = registry.lookup("objective", "my_objective:Mine", {})
  return registry.construct("tasks.main.objectives.brightness", cls, {})


def test_the_example_is_an_objective(plug_in):
  assert isinstance(plug_in, Objective)
  info = ModelInfo(embed_dim=8)
  assert plug_in.chance(info, 4) == pytest.approx(np.log(8))
  assert list(plug_in.fields(info)) == ["image", "text"]


def test_the_example_computes_what_it_says(plug_in, rng):
  # Four pictures of one brightness each; the last is a filler.
  image = np.full((4, 6, 6, 3), 0, np.uint8)
  image += np.array([0, 100, 255, 7], np.uint8)[:, None, None, None]
  logits = rng.normal(size=(4, 8)).astype(np.float32)
  batch = {"image": image, "example_mask": np.array([True, True, True, False])}
  calls = {("pool", "text"): "pooled", ("head", "brightness", "pooled"): logits}

  term, metrics = plug_in(
    lambda *call: (
      jnp.asarray(calls[call]) if call[0] == "head" else calls[call]
    ),
    jax.tree.map(jnp.asarray, batch),
    rng=jax.random.key(0),
    train=True,
  )

  levels = [0, 3, 7]  # 8 levels of 32 shades.
  probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
  expected = -sum(np.log(probs[row, k]) for row, k in enumerate(levels))
  np.testing.assert_allclose(term.total, expected, rtol=1e-5)
  assert float(term.weight) == 3
  right = sum(logits[row].argmax() == k for row, k in enumerate(levels))
  assert float(metrics["accuracy"].total) == right


@pytest.mark.parametrize("page", ["README.md", "docs/architecture.md"])
def test_every_link_points_at_a_file(page):
  text = (ROOT / page).read_text()
  for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
    assert ((ROOT / page).parent / target).exists(), target
