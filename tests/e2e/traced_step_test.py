"""What the step of three objectives computes, read from its trace."""

import collections
from pathlib import Path

import jax
import pytest

from mmjax.build import settings
from mmjax.build.experiment import prepare
from mmjax.core import config as config_lib
from mmjax.objectives import multitask
from mmjax.objectives.forward_once import ForwardOnce
from mmjax.train import predict

pytestmark = pytest.mark.slow
TINY = Path(__file__).with_name("tiny.py")
LAYERS = dict(encoders_image=3, encoders_text=2, fusion=2, visual_tokenizer=1)

# Matrix products of a block: query, key, value, out, two of attention, two of
# the MLP; each has two in the backward pass.
FORWARD, BACKWARD = 8, 16


class Forgetful(ForwardOnce):
  """Computes again what it was asked before."""

  def __call__(self, *args, **kwargs):
    self._known.clear()
    return super().__call__(*args, **kwargs)


def make(views=("clean", "clean"), layers=LAYERS):
  config = config_lib.load(f"{TINY}:pretrain")
  model = config.model
  model.encoders.image.size.num_layers = layers["encoders_image"]
  model.encoders.text.size.num_layers = layers["encoders_text"]
  model.fusion.size.num_layers = layers["fusion"]
  config.tasks.main.objectives.contrastive.views = views
  return prepare(settings.resolve(config), jax.devices()[:1])


def equations(jaxpr, stack=""):
  """Yields (names of the modules it is in, equation), calls included."""
  for eqn in jaxpr.eqns:
    inside = f"{stack}/{eqn.source_info.name_stack}"
    yield inside, eqn
    for value in eqn.params.values():
      for item in value if isinstance(value, (tuple, list)) else [value]:
        inner = getattr(item, "jaxpr", item)
        if hasattr(inner, "eqns"):
          yield from equations(inner, inside)


def count(experiment, primitive, only="", placed=True):
  """Equations of a kind, by top-level part of the model."""
  abstract = experiment.abstract_state, experiment.abstract_batches()

  def trace():
    return jax.make_jaxpr(experiment.train_step)(*abstract).jaxpr

  if placed:
    with predict.placement(experiment.mesh, experiment.rules):
      jaxpr = trace()
  else:
    jaxpr = trace()
  counts = collections.Counter()
  for inside, eqn in equations(jaxpr):
    if eqn.primitive.name == primitive and only in inside:
      part = next((p for p in LAYERS if p in inside), "other")
      counts[part] += 1
  return counts


def products(part, passes):
  """Matrix products of a part that is run `passes` times and trained."""
  layers = LAYERS[part] * (FORWARD + BACKWARD)
  # The patches are projected too; the pictures need no gradient.
  stem = 2 if part == "encoders_image" else 0
  return passes * (layers + stem)


# View of pictures and texts in `contrastive` -> passes of each part: one of
# the masked views for `mlm` and `vtp`, one of each other view.
PASSES = {
  ("clean", "clean"): dict(encoders_image=2, encoders_text=2, fusion=1),
  ("masked", "clean"): dict(encoders_image=1, encoders_text=2, fusion=1),
}


@pytest.mark.parametrize("views", PASSES)
def test_each_view_is_encoded_once(views):
  counts = count(make(views), "dot_general")

  for part, passes in PASSES[views].items():
    assert counts[part] == products(part, passes), part


def test_the_visual_tokenizer_runs_forward_once():
  counts = count(make(), "dot_general")

  # Patches, blocks, projection to codes, distances to the codebook.
  expected = 1 + FORWARD * LAYERS["visual_tokenizer"] + 1 + 1
  assert counts["visual_tokenizer"] == expected


def test_without_the_memo_every_objective_would_encode_again(monkeypatch):
  monkeypatch.setattr(multitask, "ForwardOnce", Forgetful)

  counts = count(make(), "dot_general")

  # `mlm`, `vtp` and `contrastive` each encode both; two of them fuse.
  for part, passes in dict(encoders_image=3, encoders_text=3, fusion=2).items():
    assert counts[part] == products(part, passes), part


def test_the_compiler_would_not_save_what_the_memo_saves(monkeypatch):
  layers = dict.fromkeys(LAYERS, 1)

  def compiled():
    experiment = make(("masked", "clean"), layers)
    text = experiment.lower_step().compile().as_text()
    return sum(" dot(" in line for line in text.splitlines())

  with_memo = compiled()
  monkeypatch.setattr(multitask, "ForwardOnce", Forgetful)
  without = compiled()

  # Equal forward passes are merged, their backward passes are not. Without
  # the memo `vtp` and `contrastive` go back through the pictures again, and
  # `vtp` through the texts and the fusion.
  assert without - with_memo >= (2 + 1 + 1) * BACKWARD


def test_every_block_that_is_called_constrains_its_activations():
  counts = count(make(), "sharding_constraint", only="layer_")

  # The transpose of a constraint is one; the tokenizer has no backward pass.
  expected = {
    part: 2 * passes * LAYERS[part]
    for part, passes in PASSES["clean", "clean"].items()
  }
  assert counts == expected | {"visual_tokenizer": LAYERS["visual_tokenizer"]}


def test_without_the_placement_nothing_is_constrained():
  assert not count(make(), "sharding_constraint", placed=False)
