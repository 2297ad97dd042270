"""Texts from a trained model: its decoder behind a cache, placed and compiled.

made, step, state = checkpoints.restore(config, workdir, "latest")
generate = Generator(made, GenerationSettings(strategy="beam"))
texts = generate(state.ema_variables, batch)
"""

import functools
from collections.abc import Iterator, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.build import abilities, prompts
from mmjax.build import experiment as experiment_lib
from mmjax.core import errors
from mmjax.core.interfaces import Params
from mmjax.generate import beam_search, decoding, likelihood
from mmjax.generate.decoding import Texts
from mmjax.generate.settings import GenerationSettings
from mmjax.generate.text_stream import TextStream
from mmjax.models.layers.attention import CACHE
from mmjax.objectives.forward_once import ForwardOnce
from mmjax.sharding import partition
from mmjax.train.model_call import ModelCall
from mmjax.train.predict import placement

CHUNK = 8  # Steps between two looks at the text, for stop strings.


class Generator:
  """Says texts for host batches; a `core.interfaces.Generate`.

  Compiled once for each number of rows and each bucket of prompt lengths
  (`decoding.bucket`), whatever the prompts.

  Args:
    experiment: of the trained model.
    settings: how it says them.
    task: whose objective has learned it; "" = of any.

  Raises:
    UserError: no objective has, or several have and none is named; or the
      decoder is one that keeps no cache.
  """

  def __init__(
    self,
    experiment: experiment_lib.Experiment,
    settings: GenerationSettings | None = None,
    *,
    task: str = "",
  ):
    self.settings = settings or GenerationSettings()
    objectives = experiment.parts.objectives
    name = abilities.find_decoding(objectives, self.settings.objective, task)
    self.decoding = objectives[name].objective.decoding
    source = experiment.parts.pipelines[objectives[name].task]
    self.tokenizer = source.tokenizer
    self.specs = source.specs  # Of a batch of its task, by field.
    # Tokens of the longest text that was trained on: the model's context.
    text = self.decoding.text
    self.context = source.specs[text].shape[0]
    self._model = experiment.parts.model
    abilities.check_cache(text, self._model.decoders[text])
    self._mesh, self._rules = experiment.mesh, experiment.rules
    # Tokens that end a text; set before the first, () = none does.
    self.ends = (self.tokenizer.eos_id,)
    # In some vocabularies bos and eos are one token: that may be said.
    never = {
      self.tokenizer.pad_id,
      self.tokenizer.bos_id,
      self.tokenizer.mask_id,
    }
    self._never = tuple(sorted(never - {self.tokenizer.eos_id}))
    self._read = jax.jit(self._read_prompt, static_argnames="room")
    self._advance = jax.jit(self._say_more, donate_argnums=1)
    self._search = jax.jit(self._find_best, static_argnames="num_best")
    self._score = jax.jit(self._score_answers)

  def __call__(
    self, params: Params, batch: Mapping[str, np.ndarray]
  ) -> list[str]:
    """One text for each row, without the prompt."""
    if self.settings.stop:
      pieces = list(self.stream(params, batch))
      return ["".join(row) for row in zip(*pieces, strict=True)]
    ids = self.tokens(params, batch)
    return [self.tokenizer.decode(row[0]) for row in ids]

  def tokens(
    self, params: Params, batch: Mapping[str, np.ndarray], num: int = 1
  ) -> list[list[list[int]]]:
    """What is said, as ids: by row, the `num` best of a beam search, or one."""
    with placement(self._mesh, self._rules):
      texts, limits, starts, rows = self._begin(params, batch)
      if self.settings.strategy == "beam":
        return self._best(params, texts, limits, starts, rows, num)
      steps, stopped = self.settings.max_tokens, np.zeros(len(starts), bool)
      _, shown = self._advance(params, texts, limits, steps, stopped)
    tokens, lengths, _ = (np.asarray(x)[:rows] for x in shown)
    return [[ids] for ids in decoding.said(tokens, lengths, starts[:rows])]

  def stream(
    self,
    params: Params,
    batch: Mapping[str, np.ndarray],
    *,
    chunk: int = CHUNK,
    before: Sequence[int] = (),
  ) -> Iterator[list[str]]:
    """The texts piece by piece, one piece (or "") of each row at a time.

    Args:
      params: all variables of the model.
      batch: see `Generate`.
      chunk: tokens between two pieces.
      before: ids of a text that these go on with: whether a space stands in
        between is then part of the first piece.
    """
    start = len(self.tokenizer.decode(before))

    def decode(ids):
      return self.tokenizer.decode([*before, *ids])[start:]

    if self.settings.strategy == "beam":  # Known as a whole only.
      yield [decode(row[0]) for row in self.tokens(params, batch)]
      return
    with placement(self._mesh, self._rules):
      texts, limits, starts, rows = self._begin(params, batch)
    streams = [TextStream(decode, self.settings.stop) for _ in range(rows)]
    stopped, done = np.zeros(len(starts), bool), False
    stopped[rows:] = True  # Filled up.
    while not done:
      with placement(self._mesh, self._rules):
        texts, shown = self._advance(params, texts, limits, chunk, stopped)
      tokens, lengths, ended = (np.asarray(x) for x in shown)
      said = decoding.said(tokens, lengths, starts)
      yield [
        stream.push(ids, last=bool(end))
        for stream, ids, end in zip(streams, said, ended, strict=False)
      ]
      stopped[:rows] = [stream.stopped for stream in streams]
      done = bool(np.all(ended | stopped))

  def choose(
    self,
    params: Params,
    batch: Mapping[str, np.ndarray],
    answers: Sequence[str],
  ) -> list[str]:
    """The most likely of some answers, for each row."""
    scores = self.log_likelihoods(params, batch, answers)
    return [answers[i] for i in np.argmax(scores, axis=1)]

  def log_likelihoods(
    self,
    params: Params,
    batch: Mapping[str, np.ndarray],
    answers: Sequence[str],
  ) -> np.ndarray:
    """Log P(answer) by row and answer, nats; with "mean", per token.

    Raises:
      UserError: no answers, or they don't fit into the model's context.
    """
    if not answers:
      raise errors.UserError("There are no answers to choose from.")
    eos = self.tokenizer.eos_id
    ids = [[*self.tokenizer.pieces(text), eos] for text in answers]
    longest = max(map(len, ids))
    table = np.zeros((len(ids), longest), np.int32)
    for row, answer in zip(table, ids, strict=True):
      row[: len(answer)] = answer
    counts = np.array([len(answer) for answer in ids])
    mask = np.arange(longest)[None] < counts[:, None]
    with placement(self._mesh, self._rules):
      texts, _, _, rows = self._begin(params, batch, longest)
      scores = self._score(params, texts, table, mask)
    scores = np.asarray(scores)[:rows]
    return scores / counts if self.settings.answer_score == "mean" else scores

  def _best(self, params, texts, limits, starts, rows, num):
    found = self._search(params, texts, limits, num_best=num)
    tokens, lengths, scores = (np.asarray(x)[:rows] for x in found)
    return [
      [
        tokens[i, j, starts[i] : lengths[i, j]].tolist()
        for j in np.flatnonzero(np.isfinite(scores[i]))
      ]
      for i in range(rows)
    ]

  def _begin(self, params, batch, longest=0):
    """Reads the prompts: texts to go on with, how far, and where they start."""
    made, lengths = prompts.prompt_fields(
      self.decoding,
      batch,
      bos_id=self.tokenizer.bos_id,
      context=self.context,
      needed=max(longest, 1),
    )
    more = longest or self.settings.max_tokens
    size = made[self.decoding.text].shape[1]
    room = min(size + more, self.context)
    fields = prompts.given_fields(self.decoding, batch) | made
    fields["limits"] = np.minimum(lengths + more, room).astype(np.int32)
    fields["starts"] = lengths
    placed = partition.put_global_batch(
      prompts.filled(fields, self._mesh), self._mesh
    )
    limits = placed.pop("limits")
    texts, starts = self._read(params, placed, room=room)
    return texts, limits, np.array(starts), len(lengths)

  def _read_prompt(self, variables, fields, *, room):
    """Prefill: the prompt and all that is given, in one pass."""
    lengths = fields.pop("starts")
    call = self._call(variables)
    apply = ForwardOnce(call, fields, train=False)
    d = self.decoding
    sequence = apply("decode", d.text, d.given, d.mode, d.fused, room)
    last = (lengths - 1)[:, None, None]  # b 1 1
    x = jnp.take_along_axis(sequence.content, last, axis=1)  # b 1 d
    logits = apply("head", d.head, x)[:, 0]
    tokens = fields[d.text]
    tokens = jnp.pad(tokens, ((0, 0), (0, room - tokens.shape[1])))
    ended = jnp.zeros(lengths.shape, bool)
    texts = Texts(tokens, lengths, ended, logits, call.collections[CACHE])
    return texts, self._shown(lengths)

  def _step(self, variables, room, cache, tokens, positions):
    """A `decoding.Step`, of these variables."""
    call = self._call({**variables, CACHE: cache})
    d = self.decoding
    sequence = call(
      "decode",
      d.text,
      tokens,
      {},
      positions=positions,
      cache_size=room,
      train=False,
      key="decode",
    )
    logits = call("head", d.head, sequence.content, key="head")
    return logits, call.collections[CACHE]

  def _call(self, variables):
    rng = jax.random.key(0)  # Nothing is random here.
    return ModelCall(self._model, variables, rng, train=False, keep=(CACHE,))

  def _stepper(self, variables, texts):
    return functools.partial(self._step, variables, texts.tokens.shape[1])

  def _say_more(self, variables, texts, limits, num_steps, stopped):
    texts = decoding.advance(
      self._stepper(variables, texts),
      texts.replace(ended=texts.ended | stopped),
      limits,
      num_steps,
      self.settings,
      ends=self.ends,
      never=self._never,
    )
    return texts, self._shown((texts.tokens, texts.lengths, texts.ended))

  def _find_best(self, variables, texts, limits, *, num_best):
    found = beam_search.search(
      self._stepper(variables, texts),
      texts,
      limits,
      self.settings,
      ends=self.ends,
      never=self._never,
      num_best=num_best,
    )
    return self._shown((found.tokens, found.lengths, found.scores))

  def _score_answers(self, variables, texts, answers, mask):
    step = self._stepper(variables, texts)
    return self._shown(likelihood.log_likelihoods(step, texts, answers, mask))

  def _shown(self, tree):
    """Where the host can read it, on any number of processes."""
    everywhere = partition.replicated(self._mesh)
    return jax.lax.with_sharding_constraint(tree, everywhere)
