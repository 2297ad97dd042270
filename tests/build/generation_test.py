"""Texts of a model with random parameters, against its uncached forward pass.

Parameters are drawn wide, so that what is most likely is so by far.
"""

import copy
import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

from mmjax.build import evaluators, experiment
from mmjax.build.generation import Generator
from mmjax.core import errors, trees
from mmjax.core.interfaces import Generate
from mmjax.data import loader
from mmjax.generate.settings import GenerationSettings

TOWER = dict(embed_dim=16, num_layers=1, num_heads=2, mlp_dim=32)
COMPILED = "/jax/core/compile/backend_compile_duration"
ROWS, CONTEXT = 3, 12


@dataclasses.dataclass(frozen=True)
class Says:
  """An evaluator that asks for texts."""

  batches: Any
  generate: Generate

  def run(self, predict, params):
    del predict
    texts = self.generate(params, next(self.batches()))
    yield "texts", float(len(texts))


def _config(config):
  config.data = dict(
    source="synthetic",
    image=dict(size=16),
    text=dict(max_tokens=CONTEXT, prefix=dict(rate=0.5)),
  )
  config.model.encoders = dict(
    image=dict(name="vit", patch_size=8, size=TOWER),
    text=dict(name="text", size=TOWER),
  )
  config.model.fusion = dict(name="joint", size=TOWER)
  config.model.decoders = dict(
    text=dict(name="text", size=TOWER, context="prefix", stack=dict(scan=True)),
    answer=dict(name="text", size=TOWER, positions="rotary"),
  )
  asked = dict(
    question=dict(templates=(("what shape?", "group"),)),
    text=dict(field="question"),
    answer=dict(field="answer_text", max_tokens=CONTEXT),
  )
  config.tasks = dict(
    captions=dict(objectives=dict(rest=dict(name="prefix_lm"))),
    questions=dict(
      data=asked, objectives=dict(say=dict(name="vqa", generate=True))
    ),
  )
  config.evaluators = dict(
    says=dict(
      name=f"{__name__}:Says",
      task="captions",
      generation=dict(max_tokens=2),
    )
  )
  config.finetune = {}


@pytest.fixture(scope="module")
def config(resolve):
  return resolve("finetune", _config)


@pytest.fixture(scope="module")
def made(config):
  return experiment.prepare(config, jax.devices()[:1])


@pytest.fixture(scope="module")
def variables(made):
  rng = np.random.default_rng(0)
  draw = lambda x: rng.normal(size=x.shape).astype(x.dtype)  # noqa: E731
  params = trees.map_names(
    lambda name, x: 0.4 * draw(x) + name.endswith("scale"),
    made.abstract_state.params,
  )
  return {"params": jax.tree.map(lambda x: x.astype(np.float32), params)}


@pytest.fixture(scope="module")
def batches(made):
  """The first examples of each task, with prompts of different lengths."""
  taken = {}
  for task, source in made.parts.pipelines.items():
    taken[task] = next(iter(loader.eval_batches(source, batch_size=ROWS)))
  rng = np.random.default_rng(3)
  lengths = np.array([[3], [1], [5]])
  prompt = rng.integers(5, 300, (ROWS, 5), dtype=np.int32)
  prompt[:, 0] = 1
  mask = np.arange(5)[None] < lengths
  taken["captions"] |= {"prompt": prompt, "prompt_mask": mask}
  return taken


@pytest.fixture(scope="module")
def greedy(made):
  """`greedy(objective)`: its generator, made once."""
  known = {
    name: Generator(
      made, GenerationSettings(objective=name, max_tokens=CONTEXT)
    )
    for name in ("rest", "say")
  }
  return known.__getitem__


@pytest.fixture(scope="module")
def log_probs(made, variables, batches):
  """`log_probs(objective, texts)`: of what follows, by the whole texts."""
  functions = {}

  def run(generator, texts):
    d = generator.decoding

    def logits(apply, batch):
      del batch
      decoded = apply("decode", d.text, d.given, d.mode, d.fused)
      return jax.nn.log_softmax(apply("head", d.head, decoded.content))

    fn = functions.setdefault(d, logits)
    task = "captions" if d.text == "text" else "questions"
    batch = dict(batches[task])
    ids = np.zeros((ROWS, CONTEXT), np.int32)
    for row, text in zip(ids, texts, strict=True):
      row[: len(text)] = text
    batch |= {
      d.text: ids,
      f"{d.text}_mask": np.arange(CONTEXT)[None]
      < np.array([[len(text)] for text in texts]),
      f"{d.text}_prefix": _lengths(batches[task]),
    }
    return np.array(made.predictor(variables, fn, batch))  # b t v

  return run


def _lengths(batch):
  if "prompt_mask" in batch:
    return batch["prompt_mask"].sum(axis=1, dtype=np.int32)
  return np.ones(ROWS, np.int32)


def _prompts(batch):
  if "prompt" not in batch:
    return [[1]] * ROWS
  return [
    row[:length].tolist()
    for row, length in zip(batch["prompt"], _lengths(batch), strict=True)
  ]


@pytest.mark.parametrize(
  ("name", "task"), [("rest", "captions"), ("say", "questions")]
)
def test_greedy_texts_are_those_of_the_whole_forward_pass(
  greedy, variables, batches, log_probs, name, task
):
  generator, batch = greedy(name), batches[task]

  got = [row[0] for row in generator.tokens(variables, batch)]

  texts = [list(p) for p in _prompts(batch)]
  going = set(range(ROWS))
  while going:
    following = log_probs(generator, texts)
    for row in list(going):
      each = following[row, len(texts[row]) - 1]
      each[[0, 1, 3]] = -np.inf  # pad, bos, mask
      texts[row].append(int(np.argmax(each)))
      if texts[row][-1] == 2 or len(texts[row]) == CONTEXT:
        going.remove(row)
  assert got == [
    text[len(p) :] for text, p in zip(texts, _prompts(batch), strict=True)
  ]


def test_the_likelihood_of_answers_is_that_of_the_whole_forward_pass(
  greedy, variables, batches, log_probs
):
  generator, batch = greedy("say"), batches["questions"]
  answers = ("circle", "a red square", "x")

  got = generator.log_likelihoods(variables, batch, answers)

  tokenizer = generator.tokenizer
  expected = np.zeros((ROWS, len(answers)))
  for column, answer in enumerate(answers):
    ids = [1, *tokenizer.pieces(answer), 2]
    following = log_probs(generator, [ids] * ROWS).astype(np.float64)
    for i, token in enumerate(ids[1:]):
      expected[:, column] += following[:, i, token]
  np.testing.assert_allclose(got, expected, rtol=1e-4)
  best = [answers[i] for i in np.argmax(expected, axis=1)]
  assert generator.choose(variables, batch, answers) == best


def _beams_by_loops(generator, log_probs, prompts, size, steps):
  """The best text of each row: sums of log-probabilities, uncached."""
  alive = [[(0.0, [])] for _ in prompts]
  found = [[] for _ in prompts]
  for _ in range(steps):
    more = [[] for _ in prompts]
    for k in range(max(map(len, alive))):
      beams = [row[min(k, len(row) - 1)] for row in alive]
      texts = [[*p, *ids] for p, (_, ids) in zip(prompts, beams, strict=True)]
      following = log_probs(generator, texts).astype(np.float64)
      for row, (total, ids) in enumerate(beams):
        if k >= len(alive[row]):
          continue
        each = following[row, len(texts[row]) - 1]
        each[[0, 1, 3]] = -np.inf
        each -= np.log(np.sum(np.exp(each)))
        for token in {2, *np.argsort(-each)[: size + 1].tolist()}:
          longer = total + each[token], [*ids, token]
          (found if token == 2 else more)[row].append(longer)
    alive = [sorted(row, reverse=True)[:size] for row in more]
  return [max(f + a)[1] for f, a in zip(found, alive, strict=True)]


def test_a_beam_search_moves_the_cache_of_each_text_with_it(
  made, variables, batches, log_probs
):
  settings = GenerationSettings(
    strategy="beam",
    beam_size=3,
    length_penalty=0.0,
    max_tokens=3,
    objective="rest",
  )
  generator, batch = Generator(made, settings), batches["captions"]

  got = [row[0] for row in generator.tokens(variables, batch)]

  assert got == _beams_by_loops(generator, log_probs, _prompts(batch), 3, 3)


def test_pieces_make_the_text(greedy, variables, batches):
  generator, batch = greedy("rest"), batches["captions"]

  pieces = list(generator.stream(variables, batch, chunk=2))

  assert len(pieces) > 2
  texts = ["".join(row) for row in zip(*pieces, strict=True)]
  assert texts == generator(variables, batch)


def test_a_text_ends_before_a_stop_string(greedy, variables, batches):
  generator, batch = copy.copy(greedy("rest")), batches["captions"]
  whole = generator(variables, batch)
  stop = whole[1][2:4]
  assert stop

  generator.settings = dataclasses.replace(generator.settings, stop=(stop,))

  expected = [text.partition(stop)[0] for text in whole]
  assert generator(variables, batch) == expected


def test_prompts_of_one_length_bucket_compile_nothing_new(
  greedy, variables, batches
):
  generator, batch = greedy("rest"), dict(batches["captions"])
  generator(variables, batch)  # A longest prompt of 5: the bucket of 8.
  heard = []

  def hear(event, duration, **kwargs):
    del duration, kwargs
    heard.append(event == COMPILED)

  jax.monitoring.register_event_duration_secs_listener(hear)
  try:
    for width in (2, 7, 8):
      batch["prompt"] = np.full((ROWS, width), 9, np.int32)
      batch["prompt_mask"] = np.ones((ROWS, width), bool)
      generator(variables, batch)
    within = sum(heard)
    batch["prompt"] = np.full((ROWS, 9), 9, np.int32)
    batch["prompt_mask"] = np.ones((ROWS, 9), bool)
    generator(variables, batch)
  finally:
    jax.monitoring.unregister_event_duration_listener(hear)

  assert within == 0
  assert sum(heard) > 0


def test_a_mesh_says_the_same_and_splits_the_cache(
  resolve, greedy, variables, batches
):
  def edit(config):
    _config(config)
    config.mesh = dict(data=2, fsdp=2, tensor=2, rules="fsdp_tensor")

  made = experiment.prepare(resolve("finetune", edit))
  params = jax.tree.map(
    jax.device_put, variables["params"], made.shardings.params
  )
  generator = Generator(made, greedy("rest").settings)
  batch = batches["captions"]  # 3 rows, on 4 groups of devices.

  got = generator({"params": params}, batch)
  with experiment.predict.placement(made.mesh, made.rules):
    texts, *_ = generator._begin({"params": params}, batch)

  assert got == greedy("rest")(variables, batch)
  cache = trees.flatten(texts.cache)
  keys = next(v for k, v in cache.items() if k.endswith("keys"))
  # One layer, 4 rows, 12 + 4 slots, 2 heads, 8 channels.
  assert keys.shape == (1, 4, 16, 2, 8)
  assert keys.sharding.shard_shape(keys.shape) == (1, 1, 16, 1, 8)


def test_a_prompt_longer_than_the_context_is_refused(
  greedy, variables, batches
):
  batch = dict(batches["captions"], prompt=np.ones((ROWS, CONTEXT), np.int32))
  del batch["prompt_mask"]

  with pytest.raises(errors.UserError, match="has 12 tokens.* of 12 that"):
    greedy("rest")(variables, batch)


def test_a_batch_without_what_is_given_is_refused(greedy, variables, batches):
  batch = {k: v for k, v in batches["captions"].items() if k != "image"}

  with pytest.raises(errors.UserError, match="Unknown field of the batch"):
    greedy("rest")(variables, batch)


def test_an_evaluator_gets_what_says_texts(config, made, variables):
  found = evaluators.make_evaluators(
    config, made.parts.objectives, made.parts.info, 8, made
  )["says"]

  assert isinstance(found.generate, Generate)
  assert found.generate.settings.max_tokens == 2
  assert found.generate.decoding.text == "text"
  assert dict(found.run(None, variables)) == {"texts": 8.0}


def test_what_was_said_so_far_is_not_kept_twice(
  greedy, variables, batches, monkeypatch
):
  generator = greedy("rest")
  advance, states = generator._advance, []

  def watched(params, texts, *args):
    states.append(texts)
    return advance(params, texts, *args)

  monkeypatch.setattr(generator, "_advance", watched)
  list(generator.stream(variables, batches["captions"], chunk=2))
  assert states
  for texts in states:  # The cache is most of it.
    caches = [x for x in jax.tree.leaves(texts) if x.ndim > 3]
    assert caches and all(x.is_deleted() for x in caches)
