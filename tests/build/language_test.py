"""Objectives that generate text, in one model from a config."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.build import experiment
from mmjax.core import errors
from mmjax.data import loader
from mmjax.objectives import multitask
from mmjax.train.model_call import ModelCall

TOWER = dict(embed_dim=16, num_layers=1, num_heads=2, mlp_dim=32)
NAMES = (
  *("black", "blue", "green", "orange", "purple", "red"),
  *("circle", "diamond", "square", "triangle"),
)
BATCH = 8


def _language(config):
  """Every objective, on captions and on questions about them."""
  config.data = dict(
    source="synthetic",
    image=dict(size=16),
    text=dict(max_tokens=12, prefix=dict(rate=0.5), parallel=dict(rate=0.5)),
  )
  config.model.encoders = dict(
    image=dict(name="vit", patch_size=8, size=TOWER),
    text=dict(name="text", size=TOWER, causal=True, pool="last"),
  )
  config.model.fusion = dict(name="joint", size=TOWER)
  config.model.decoders = dict(
    text=dict(name="text", size=TOWER, context="prefix"),
    answer=dict(name="text", size=TOWER),
  )
  tagged = dict(
    multi_label=True, field="tags_en", names=NAMES, ignore_others=True
  )
  asked = dict(
    image=dict(size=16),
    question=dict(
      templates=(("what shape?", "group"), ("what color?", "subgroup"))
    ),
    text=dict(field="question"),
    answer=dict(field="answer_text", max_tokens=5),
    label=dict(field="answer_text", names=NAMES),
  )
  config.tasks = dict(
    captions=dict(
      data=dict(label=tagged),
      objectives=dict(
        caption=dict(name="captioning", parallel=True),
        rest=dict(name="prefix_lm"),
        gpt=dict(name="causal_lm", tied=True, head="gpt"),
        encoder=dict(
          name="causal_lm", part="encoder", tied=True, head="encoder"
        ),
        tags=dict(name="classification", multi_label=True, head="tags"),
      ),
    ),
    questions=dict(
      data=asked,
      objectives=dict(
        pick=dict(name="vqa", head="pick"),
        say=dict(name="vqa", generate=True),
      ),
    ),
  )
  config.finetune = {}
  config.train.batch_size = BATCH


@pytest.fixture(scope="module")
def made(resolve):
  def edit(config):
    _language(config)
    config.finetune.trainable = (".*",)

  return experiment.prepare(resolve("finetune", edit), jax.devices()[:1])


@pytest.fixture(scope="module")
def batches(made):
  """The first examples of each task, two of them filler."""
  taken = {}
  for task, source in made.parts.pipelines.items():
    batch = next(iter(loader.eval_batches(source, batch_size=BATCH)))
    taken[task] = {
      name: jnp.asarray(batch[name]) for name in made.parts.fields[task]
    }
    taken[task]["example_mask"] = jnp.arange(BATCH) < BATCH - 2
  return taken


@pytest.fixture(scope="module")
def variables(made):
  init = jax.jit(
    lambda key: experiment.init_variables(
      key, parts=made.parts, batch_size=BATCH
    )
  )
  return experiment.nn.meta.unbox(init(jax.random.key(0)))


@pytest.fixture(scope="module")
def run(made, variables):
  """Losses and their gradient in a batch."""

  def losses(params, batches):
    call = ModelCall(
      made.parts.model,
      {**variables, "params": params},
      jax.random.key(1),
      train=False,
    )
    terms, _ = multitask.forward(
      made.parts.objectives, call, batches, jax.random.key(1), train=False
    )
    return sum(t.mean for t in terms.values()), terms

  fn = jax.jit(jax.grad(losses, has_aux=True))
  return lambda batches: fn(variables["params"], batches)


def _means(terms):
  return {name: float(term.mean) for name, term in terms.items()}


def test_a_fresh_model_is_at_chance(made, run, batches):
  _, terms = run(batches)
  for name, chance in made.chance().items():
    assert _means(terms)[name] == pytest.approx(chance, rel=0.05), name
  real = {k: np.asarray(v)[: BATCH - 2] for k, v in batches["captions"].items()}
  tokens = int(real["text_mask"].sum()) - (BATCH - 2)  # Without bos.
  assert terms["caption"].weight == terms["gpt"].weight == tokens
  given = int(real["text_prefix"].sum()) - (BATCH - 2)
  assert terms["rest"].weight == tokens - given
  assert terms["tags"].weight == (BATCH - 2) * len(NAMES)
  assert terms["pick"].weight == BATCH - 2


def test_the_order_of_examples_and_filler_change_nothing(run, batches):
  grads, terms = run(batches)
  order = np.random.default_rng(0).permutation(BATCH)
  shuffled = jax.tree.map(lambda x: x[order], batches)
  junk = jax.tree.map(lambda x: x, batches)
  for batch in junk.values():
    batch["text"] = batch["text"].at[BATCH - 2 :].set(7)
    batch["image"] = batch["image"].at[BATCH - 2 :].set(255)
  for other in (shuffled, junk):
    got_grads, got = run(other)
    assert _means(got) == pytest.approx(_means(terms), rel=1e-5)
    for a, b in zip(
      jax.tree.leaves(got_grads), jax.tree.leaves(grads), strict=True
    ):
      np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_a_batch_of_filler_alone_gives_zeros(run, batches):
  nothing = jax.tree.map(lambda x: x, batches)
  for batch in nothing.values():
    batch["example_mask"] = jnp.zeros(BATCH, bool)
  grads, terms = run(nothing)
  assert set(_means(terms).values()) == {0.0}
  for grad in jax.tree.leaves(grads):
    np.testing.assert_array_equal(grad, 0)


def test_parameters_are_those_that_objectives_use(made):
  params = made.abstract_state.params
  decoders = {n: v for n, v in params.items() if n.startswith("decoders")}
  assert set(decoders) == {"decoders_text", "decoders_answer"}
  layer = {n: set(d["stack"]["layer_00"]) for n, d in decoders.items()}
  assert "cross_attention" not in layer["decoders_text"]
  assert "cross_attention" in layer["decoders_answer"]
  assert "mask_token" in decoders["decoders_text"]
  assert set(params["heads_gpt"]) == {"bias"}  # Its matrix is the table.
  assert made.parts.model.decoders["answer"].max_tokens == 12


@pytest.mark.parametrize(
  ("edit", "message"),
  [
    (
      lambda c: c.model.encoders.text.update(causal=False),
      "'encoder' predicts each token.*encoders.text.causal=True",
    ),
    (
      lambda c: c.data.text.__delitem__("parallel"),
      "'caption' reads the field 'text_parallel'",
    ),
    (
      lambda c: c.model.decoders.__delitem__("answer"),
      "decoder 'answer'",
    ),
    (
      lambda c: c.tasks.captions.data.label.update(
        multi_label=False, field="group"
      ),
      "'tags' expects 'label' as float32",
    ),
  ],
)
def test_what_does_not_fit_is_told(resolve, edit, message):
  def change(config):
    _language(config)
    edit(config)

  with pytest.raises(errors.UserError, match=message):
    experiment.prepare(resolve("finetune", change), jax.devices()[:1])
