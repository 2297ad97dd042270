"""Rows of several examples: the same losses as if each had a row of its own."""

import jax
import jax.numpy as jnp
import ml_collections as mlc
import numpy as np
import pytest

from mmjax.build import experiment, settings
from mmjax.core import errors
from mmjax.data.transforms.packed import PACKED
from mmjax.objectives.forward_once import ForwardOnce
from mmjax.train.model_call import ModelCall

SIZE = dict(embed_dim=16, num_layers=1, num_heads=2, mlp_dim=24)
TEXTS = dict(
  mlm=dict(name="masked_lm", given=()),
  causal=dict(name="causal_lm"),
)
PAIRS = dict(
  mlm=dict(name="masked_lm", given=("images",)),
  vtp=dict(name="vision_token_prediction", image="images", given=("text",)),
)
TWO_LOOKS = dict(
  name="contrastive", modalities=("text", "text"), views=("clean", "masked")
)
CAPTION = dict(causal=dict(name="captioning", given=("images",)))
ROWS = 2


def _config(objectives, positions="learned", **model):
  c = mlc.ConfigDict()
  text = dict(max_tokens=48, pack=True, mask=dict(rate=0.3))
  c.data = dict(source="synthetic", split="test", text=text)
  encoder = dict(name="text", size=SIZE, positions=positions)
  decoder = dict(name="text", size=SIZE, positions=positions)
  c.model = dict(encoders=dict(text=encoder), precision="float32", **model)
  if "causal" in objectives:
    c.model.decoders = dict(text=decoder)
  c.tasks = dict(main=dict(objectives=objectives))
  c.train = dict(batch_size=8)
  return c


def _with_pictures(objectives=PAIRS, fusion="joint", **encoder):
  c = _config(objectives, fusion=dict(name=fusion, size=SIZE))
  mask = dict(rate=0.5, patch_size=8)
  c.data.image = dict(size=16, mask=mask, max_images=4)
  c.model.encoders.image = dict(name="vit", patch_size=8, size=SIZE, **encoder)
  c.model.visual_tokenizer = dict(
    name="vq",
    patch_size=8,
    num_codes=8,
    code_dim=4,
    encoder_size=SIZE,
    decoder_size=SIZE,
  )
  c.finetune = dict(frozen=("visual_tokenizer/.*",))
  return c


def _prepare(config):
  return experiment.prepare(settings.resolve(config), jax.devices()[:1])


def _rows(source):
  """Rows, and the examples in them made one by one with the same draws."""
  rows, alone = [], []
  (transform,) = source.transforms
  for i in range(ROWS):
    parts = source.source[i][PACKED]
    assert len(parts) > 1
    rows.append(
      transform(source.source[i], np.random.default_rng(i), train=True)
    )
    rng = np.random.default_rng(i)
    for part in parts:
      for single in transform.transforms:
        part = single(part, rng, train=True)
      alone.append(part)
  batch = {n: np.stack([r[n] for r in rows]) for n in source.specs}
  names = {n for t in transform.transforms for n in t.specs()}
  single = {n: np.stack([a[n] for a in alone]) for n in names}
  for name in ("image", "image_hidden"):  # One picture in each.
    if name in single:
      new = name.replace("image", "images")
      single[new] = single.pop(name)[:, None]
      single["images_mask"] = np.ones((len(alone), 1), bool)
  return batch, single


def _losses(made, batch, variables):
  key = jax.random.key(0)

  @jax.jit
  def run(variables, batch):
    call = ModelCall(made.parts.model, variables, key, train=True)
    apply = ForwardOnce(call, batch, train=True)
    return {
      name: item.objective(apply, batch, rng=key, train=True)[0]
      for name, item in made.parts.objectives.items()
    }

  return run(variables, jax.tree.map(jnp.asarray, batch))


def _compare(made):
  (source,) = made.parts.pipelines.values()
  packed, single = _rows(source)
  variables = _variables(made)
  losses = _losses(made, packed, variables)
  alone = _losses(made, single, variables)
  assert set(losses) == set(made.parts.objectives)
  for name, loss in losses.items():
    assert loss.weight == alone[name].weight > 4
    np.testing.assert_allclose(loss.total, alone[name].total, rtol=1e-5)


def _variables(made):
  """Drawn by numpy, so that heads don't start at zero."""
  rng = np.random.default_rng(0)
  variables = {
    "params": made.abstract_state.params,
    **made.abstract_state.collections,
  }
  return jax.tree.map(
    lambda x: jnp.asarray(0.3 * rng.normal(size=x.shape), x.dtype), variables
  )


@pytest.mark.parametrize("positions", ["learned", "sincos", "rotary"])
def test_texts_that_share_a_row_have_the_losses_of_texts_alone(positions):
  _compare(_prepare(_config(TEXTS, positions)))


def test_pairs_that_share_a_row_have_the_losses_of_pairs_alone():
  _compare(_prepare(_with_pictures()))


@pytest.mark.parametrize(
  ("config", "message"),
  [
    (
      _config(dict(align=TWO_LOOKS), shared_dim=8),
      "several examples, so one vector",
    ),
    (_with_pictures(fusion="cross_attention"), "CoAttention.* would mix"),
    (_with_pictures(fusion="bottleneck"), "would mix"),
    (_with_pictures(hidden="drop"), "hidden='replace'"),
    (_with_pictures(CAPTION), "the decoder keeps them apart without"),
  ],
)
def test_what_would_mix_the_examples_of_a_row_is_refused(config, message):
  with pytest.raises(errors.UserError, match=message):
    _prepare(config)


def test_an_encoder_with_a_token_for_all_of_a_row_is_refused():
  config = _config(TEXTS)
  config.model.encoders.text.pool = "cls"
  with pytest.raises(errors.UserError, match="pool to 'mean'"):
    _prepare(config)
