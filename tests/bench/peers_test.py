import importlib
import importlib.util
import os
import sys

import numpy as np
import pytest

from mmjax.bench.candidate import NotInstalled, Tower, Work
from mmjax.bench.peers import (
  PEERS,
  batches,
  big_vision_models,
  libraries,
  timm_vit,
  torch_step,
)
from mmjax.core import errors

D, F, HEADS = 16, 40, 2
TOWER = Tower(width=D, layers=1, heads=HEADS, mlp_dim=F)
PIXELS = dict(image_size=32, patch_size=8, image=TOWER)
TEXT = dict(text=TOWER, vocab_size=50, text_tokens=20)
CLASSIFIER = Work("image_classification", 4, num_classes=10, **PIXELS)
PAIRS = Work("contrastive", 4, **PIXELS, **TEXT)
FUSED = Work("flava", 4, fusion=TOWER, num_codes=30, **PIXELS, **TEXT)

N, T, V, C, K = 16, 20, 50, 10, 30  # Patches, tokens, words, classes, codes.
NORM = 2 * D
LINEAR = D * D + D
MLP = 2 * D * F + F + D
BLOCK = 4 * LINEAR + MLP + 2 * NORM
STACK = BLOCK + NORM
PATCHES = 8 * 8 * 3 * D
# A stack's tokens: patches with bias and positions, or words with positions.
IMAGE = PATCHES + D + N * D + STACK
WORDS = V * D + T * D + STACK


def _linear(n, m):
  return n * m + m


def _token_head(m):
  """A hidden layer, a norm, the logits."""
  return LINEAR + NORM + _linear(D, m)


PARAMS = {
  "timm": IMAGE + _linear(D, C),
  # No bias of patches; a class token with its position; two projections.
  "open_clip": IMAGE - D + 2 * D + WORDS + 2 * D * D + 2,
  # Besides a norm before the stack; no bias in the loss.
  "clip": IMAGE - D + 2 * D + NORM + WORDS + 2 * D * D + 1,
  # A layer of attention with a learned query pools patches.
  "siglip": IMAGE + D + BLOCK - NORM + WORDS + LINEAR + 2,
  # Class tokens of image and fusion, a mask token, segments and a norm of
  # words; poolers of all three; projections into fusion and shared space.
  "flava": (IMAGE + 3 * D + LINEAR)
  + (WORDS + 2 * D + NORM + LINEAR)
  + (D + STACK + LINEAR)
  + 4 * LINEAR
  + 2 * (_token_head(V) + _token_head(K))
  + (LINEAR + _linear(D, 2))
  + 1,
  # One stack; a class token, segments of words and of modalities; a pooler.
  "vilt": IMAGE
  + 2 * D
  + (V + T + 2) * D
  + NORM
  + 2 * D
  + LINEAR
  + LINEAR
  + NORM
  + V,
}
WORKS = {
  "timm": CLASSIFIER,
  "open_clip": PAIRS,
  "clip": PAIRS,
  "siglip": PAIRS,
  "flava": FUSED,
  "vilt": FUSED,
}
LIBRARIES = {"timm": "timm", "open_clip": "open_clip"}


def _make(name, work, precision="float32", option=""):
  module, function = PEERS[name].split(":")
  make = getattr(importlib.import_module(module), function)
  return make(work, precision, option)


def _needs(*names):
  for name in names:
    if importlib.util.find_spec(name) is None:
      pytest.skip(f"{name} is not installed: {libraries.INSTALL}")


@pytest.mark.parametrize("name", WORKS)
def test_a_peer_has_the_parameters_of_the_work_and_learns(name):
  _needs("torch", LIBRARIES.get(name, "transformers"))
  step = _make(name, WORKS[name])
  assert step.facts["params"] == PARAMS[name]
  losses = step.facts["losses"]
  assert len(losses) == 8 and losses[-1] < losses[0]
  step.run(2)
  fast = _make(name, WORKS[name], "bfloat16").facts["losses"]
  # After steps as large for a model as small, rounding has grown.
  assert fast[0] == pytest.approx(losses[0], rel=2e-2)
  assert fast != losses and fast[-1] < fast[0]


def _adamw_losses(image, labels, classes):
  """Of a linear classifier of mean colours from zeros, by hand."""
  x = image.mean((1, 2)).astype(np.float64)
  w, m, v = (np.zeros((3, classes)) for _ in range(3))
  losses = []
  for count in range(1, 9):
    logits = x @ w
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    losses.append(-np.log(p[np.arange(len(x)), labels]).mean())
    g = x.T @ (p - np.eye(classes)[labels]) / len(x)
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
    mean, square = m / (1 - 0.9**count), v / (1 - 0.999**count)
    w -= 1e-3 * (mean / (np.sqrt(square) + 1e-8) + 1e-4 * w)
  return losses


def test_torch_takes_the_steps_of_adamw():
  _needs("torch")
  torch = libraries.load("torch")
  batch = batches.classification(CLASSIFIER)

  def build():
    model = torch.nn.Linear(3, C, bias=False)
    torch.nn.init.zeros_(model.weight)
    return model

  def loss(model, batch):
    logits = model(batch["image"].mean((2, 3)))
    return torch.nn.functional.cross_entropy(logits, batch["label"])

  step = torch_step.TorchStep(build, loss, batch, precision="float32")
  expected = _adamw_losses(batch["image"], batch["label"], C)
  np.testing.assert_allclose(step.facts["losses"], expected, rtol=1e-5)
  with pytest.raises(errors.UserError, match="Did you mean 'eager'"):
    torch_step.TorchStep(build, loss, batch, precision="float32", mode="eagre")


LINEAR_VIT = """
import jax.numpy as jnp

class Model:
  def __init__(self, num_classes, **options):
    self.classes, self.options = num_classes, options

  def init(self, key, image):
    assert self.options["dtype_mm"] == "float32"
    assert self.options["pool_type"] == "gap" and not self.options["scan"]
    return {"params": {"w": jnp.zeros((3, self.classes))}}

  def apply(self, variables, image, train):
    assert train
    return image.mean((1, 2)) @ variables["params"]["w"], {}
"""


@pytest.fixture
def checkout(tmp_path, monkeypatch):
  """Where big_vision's ViT is a linear classifier."""
  models = tmp_path / "big_vision" / "models"
  models.mkdir(parents=True)
  (models / "vit.py").write_text(LINEAR_VIT)
  monkeypatch.setattr(sys, "path", [*sys.path])
  yield tmp_path
  for name in [n for n in sys.modules if n.split(".")[0] == "big_vision"]:
    del sys.modules[name]


def test_big_vision_takes_the_steps_of_adamw(checkout):
  step = big_vision_models.make(CLASSIFIER, "float32", str(checkout))
  batch = batches.classification(CLASSIFIER)
  expected = _adamw_losses(batch["image"], batch["label"], C)
  np.testing.assert_allclose(step.facts["losses"], expected, rtol=1e-5)
  assert step.facts["params"] == 3 * C
  step.run(1)


def test_a_checkout_that_lacks_a_library_says_what(checkout):
  vit = checkout / "big_vision" / "models" / "vit.py"
  vit.write_text("import no_such_library")
  with pytest.raises(NotInstalled, match=r"'no_such_library'.*pip install"):
    big_vision_models.make(CLASSIFIER, "float32", str(checkout))


@pytest.mark.parametrize("work", [CLASSIFIER, PAIRS], ids=lambda w: w.kind)
def test_a_real_checkout_has_the_parameters_of_the_work(work):
  path = os.environ.get("MMJAX_BIG_VISION")
  if not path:
    pytest.skip("MMJAX_BIG_VISION is not the path of a checkout")
  # Both features are projected with a bias; temperature and bias.
  shared = WORDS + 2 * LINEAR + 2
  expected = IMAGE + (_linear(D, C) if work is CLASSIFIER else shared)
  for precision in ("float32", "bfloat16"):
    facts = big_vision_models.make(work, precision, path).facts
    assert facts["params"] == expected
    assert facts["losses"][-1] < facts["losses"][0]


@pytest.mark.parametrize("path", ["", "/no/such/folder"])
def test_without_a_checkout_big_vision_asks_for_one(path):
  with pytest.raises(errors.UserError, match="--peer=big_vision:PATH"):
    big_vision_models.make(CLASSIFIER, "float32", path)


@pytest.mark.parametrize("name", [*WORKS, "big_vision"])
def test_work_of_another_kind_is_refused(name):
  with pytest.raises(errors.UserError, match=f"{name} does .*got .*other"):
    _make(name, Work("other", 4))


def test_a_peer_that_is_not_installed_says_how(monkeypatch):
  monkeypatch.setitem(sys.modules, "timm", None)
  with pytest.raises(NotInstalled, match=r"timm is .*pip install 'mmjax\[ben"):
    timm_vit.make(CLASSIFIER, "float32")


@pytest.mark.parametrize("ratio, patches", [(0.0, 6), (0.75, 12)])
def test_as_much_is_hidden_in_each_example(ratio, patches):
  work = Work(**{**vars(FUSED), "hidden_ratio": ratio})
  made = batches.masked_pairs(work)
  assert (made["image_hidden"].sum(1) == patches).all()
  assert ((made["image_labels"] >= 0) == made["image_hidden"]).all()
  known = made["text_labels"] != batches.IGNORED
  assert (known.sum(1) == 3).all()  # 15 % of 20.
  assert (made["text_labels"][known] == made["text"][known]).all()
  assert (made["text_masked"][~known] == made["text"][~known]).all()
  for name, x in batches.masked_pairs(work).items():
    np.testing.assert_array_equal(x, made[name])
