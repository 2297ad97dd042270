"""What stands in the place of an absent modality changes nothing at all."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mmjax.build import parts, settings
from mmjax.core import config as configs
from mmjax.objectives import multitask
from mmjax.train import model_call
from mmjax.train import variables as variables_lib
from tests.e2e import tiny


@pytest.fixture(scope="module")
def setting():
  config = configs.load(f"{tiny.__file__}:pretrain")
  made = parts.make_parts(settings.resolve(config))
  source = made.pipelines["main"]
  examples = [source.example(i, 0, 0, train=True) for i in range(6)]
  batch = {
    name: jnp.asarray(np.stack([example[name] for example in examples]))
    for name in source.specs
  }
  batch["image_present"] = jnp.asarray([1, 0, 1, 1, 0, 1], bool)
  batch["text_present"] = jnp.asarray([1, 1, 0, 1, 0, 1], bool)
  variables = nn.meta.unbox(
    variables_lib.initialize(
      made.model, made.objectives, {"main": batch}, jax.random.key(0)
    )
  )

  @jax.jit
  def run(params, batch):
    def loss(params):
      call = model_call.ModelCall(
        made.model,
        {**variables, "params": params},
        jax.random.key(1),
        train=False,
      )
      terms, _ = multitask.forward(
        made.objectives, call, {"main": batch}, jax.random.key(2), train=False
      )
      return sum(term.mean for term in terms.values()), terms

    return jax.value_and_grad(loss, has_aux=True)(params)

  return run, variables["params"], batch


def _noise(batch, rng):
  noisy = {name: np.array(value) for name, value in batch.items()}
  for modality, high in (("image", 256), ("text", 400)):
    absent = ~np.asarray(batch[f"{modality}_present"])
    fields = [modality] + ["text_masked"] * (modality == "text")
    for name in fields:
      shape = noisy[name][absent].shape
      noisy[name][absent] = rng.integers(0, high, shape)
  for name in ("text_mask", "text_hidden_mask"):
    noisy[name][~noisy["text_present"]] = True
  return noisy


def test_what_stands_in_absent_places_changes_nothing(setting, rng):
  run, params, batch = setting
  (value, terms), grads = run(params, batch)
  (got, got_terms), got_grads = run(params, _noise(batch, rng))
  assert got == value
  jax.tree.map(np.testing.assert_array_equal, got_terms, terms)
  jax.tree.map(np.testing.assert_array_equal, got_grads, grads)
  assert any(np.any(np.asarray(g) != 0) for g in jax.tree.leaves(grads))


def test_losses_count_the_examples_that_have_the_fields(setting):
  run, params, batch = setting
  (_, terms), _ = run(params, batch)
  assert terms["contrastive"].weight == 3  # Both: the first, fourth and last.
  hidden = batch["text_hidden_mask"][batch["text_present"]].sum()
  assert terms["mlm"].weight == hidden
  per_example = batch["image_hidden"].shape[1]
  assert terms["vtp"].weight == 4 * per_example


def test_an_example_without_pictures_is_as_if_it_had_never_had_any(setting):
  """Its words are guessed as by a fusion that is given words alone."""
  run, params, batch = setting
  one = {name: jnp.asarray(value[1:2]) for name, value in batch.items()}
  with_image = {**one, "image_present": jnp.asarray([True])}
  (_, lacking), _ = run(params, one)
  (_, having), _ = run(params, with_image)
  assert lacking["vtp"].weight == 0 and having["vtp"].weight > 0
  assert lacking["mlm"].total != having["mlm"].total
