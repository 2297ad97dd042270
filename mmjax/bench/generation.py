"""How fast a model says texts: time to the first token, tokens a second.

What the weights are makes no difference, so they are random, and no text ends
before it is as long as asked. Times are those a user sees: placing the inputs,
encoders, prompt, and the decoding of tokens into text are in them.
"""

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import ml_collections as mlc
import numpy as np
from flax import linen as nn

from mmjax.build import experiment as experiment_lib
from mmjax.build import generation, prompts
from mmjax.core import errors
from mmjax.core.batch import FieldSpec
from mmjax.core.interfaces import Params

COMPILED = "/jax/core/compile/backend_compile_duration"


def run(
  config: mlc.ConfigDict,
  settings: generation.GenerationSettings,
  *,
  rows: Sequence[int],
  prompt_tokens: int,
  num_rounds: int,
  say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
  """Measures the decoder of a config.

  Args:
    config: resolved.
    settings: `max_tokens` are said of each text.
    rows: texts that are said at a time; each number is measured.
    prompt_tokens: of the longest prompt, begin included. Others are a little
      shorter, and in each round of another length within the same bucket.
    num_rounds: samples of each number of rows, in turn.
    say: told what goes on.

  Raises:
    UserError: the config has no decoder; or prompt and text don't fit into its
      context; or a number below 1.
  """
  for name, value in (
    ("rows", min(rows, default=0)),
    ("prompt_tokens", prompt_tokens),
    ("rounds", num_rounds),
    ("max_tokens - 1", settings.max_tokens - 1),
  ):
    if value < 1:
      raise errors.UserError(f"{name}={value}, expected at least 1.")
  made = experiment_lib.prepare(config)
  generator = generation.Generator(made, settings)
  generator.ends = ()
  needed = prompt_tokens + settings.max_tokens
  if needed > generator.context:
    raise errors.UserError(
      f"A prompt of {prompt_tokens} tokens and {settings.max_tokens} to say "
      f"are {needed}, of {generator.context} that the decoder reads."
    )
  variables = jax.jit(
    lambda key: nn.meta.unbox(
      experiment_lib.init_variables(key, parts=made.parts, batch_size=1)
    )
  )(jax.random.key(0))
  samples: dict[int, list[tuple[float, float]]] = {n: [] for n in rows}
  for number in rows:
    sample(generator, variables, number, prompt_tokens)  # Compiles.
    say(f"{number} rows: compiled")
  with _compilations() as compiled:
    for round_number in range(num_rounds):
      length = max(prompt_tokens - round_number % 2, 1)
      for number in rows:
        samples[number].append(sample(generator, variables, number, length))
      say(f"round {round_number + 1} of {num_rounds}")
  return {
    "device": jax.devices()[0].device_kind,
    "devices": jax.device_count(),
    "decoder": generator.decoding.text,
    "strategy": settings.strategy,
    "tokens": settings.max_tokens,
    "prompt_tokens": prompt_tokens,
    "compilations": len(compiled),
    "rows": [
      {"rows": number, **figures(number, found, settings.max_tokens)}
      for number, found in samples.items()
    ],
  }


def sample(
  generator: generation.Generator, variables: Params, number: int, length: int
) -> tuple[float, float]:
  """Seconds to the first token, and of the whole texts.

  Args:
    generator: without `ends`.
    variables: of the model.
    number: texts at a time.
    length: tokens of each prompt, begin included.
  """
  batch = _batch(generator, number, length)
  start = time.perf_counter()
  next(generator.stream(variables, batch, chunk=1))
  first = time.perf_counter() - start
  start = time.perf_counter()
  generator.tokens(variables, batch)
  return first, time.perf_counter() - start


def _batch(generator, number, length):
  """Random inputs, all present, and prompts that begin with bos."""
  rng = np.random.default_rng(0)
  specs = generator.specs
  filled = {name: _values(spec, number, rng) for name, spec in specs.items()}
  batch = prompts.given_fields(generator.decoding, filled)
  prompt = rng.integers(
    5, generator.tokenizer.vocab_size, (number, length), np.int32
  )
  prompt[:, 0] = generator.tokenizer.bos_id
  mask = np.ones((number, length), bool)
  return {**batch, prompts.PROMPT: prompt, f"{prompts.PROMPT}_mask": mask}


def _values(spec: FieldSpec, number: int, rng: np.random.Generator):
  shape, dtype = (number, *spec.shape), np.dtype(spec.dtype)
  if np.issubdtype(dtype, np.bool_):
    return np.ones(shape, bool)
  if dtype == np.uint8:
    return rng.integers(0, 256, shape, dtype)
  if np.issubdtype(dtype, np.integer):
    return np.zeros(shape, dtype)
  return rng.normal(size=shape).astype(dtype)


def figures(
  number: int, samples: Sequence[tuple[float, float]], tokens: int
) -> dict[str, dict[str, float]]:
  """Of samples of `number` texts of `tokens` tokens: median and spread."""
  first = [a for a, _ in samples]
  # Of whole texts: less the first token's time, small models' noise would be
  # all that is left.
  rates = [number * tokens / whole for _, whole in samples]
  return {"first_token_secs": _spread(first), "tokens_per_sec": _spread(rates)}


def _spread(values: Sequence[float]) -> dict[str, float]:
  return {
    "median": statistics.median(values),
    "least": min(values),
    "most": max(values),
  }


@contextlib.contextmanager
def _compilations() -> Iterator[list[str]]:
  """Collects what XLA compiles meanwhile."""
  heard: list[str] = []

  def hear(event: str, duration: float, **kwargs: Any) -> None:
    del duration, kwargs
    if event == COMPILED:
      heard.append(event)

  jax.monitoring.register_event_duration_secs_listener(hear)
  try:
    yield heard
  finally:
    jax.monitoring.unregister_event_duration_listener(hear)


def describe(found: Mapping[str, Any]) -> str:
  """The figures as text."""
  lines = [
    f"{found['devices']} x {found['device']}; decoder {found['decoder']!r}, "
    f"{found['strategy']}: {found['tokens']} tokens after a prompt of up to "
    f"{found['prompt_tokens']}; median (least to most)",
    f"{'texts at a time':>15}  {'first token, ms':>24}  {'tokens/s, all':>28}",
  ]
  for row in found["rows"]:
    first = _text(row["first_token_secs"], 1000, ".1f")
    rate = _text(row["tokens_per_sec"], 1, ",.0f")
    lines.append(f"{row['rows']:15}  {first:>24}  {rate:>28}")
  lines.append(
    f"programs compiled for prompts of other lengths in the same bucket: "
    f"{found['compilations']}"
  )
  return "\n".join(lines)


def _text(spread, unit, form):
  median, least, most = (
    format(unit * spread[name], form) for name in ("median", "least", "most")
  )
  return f"{median} ({least} to {most})"
