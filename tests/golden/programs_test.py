"""What the compiled steps of small configs cost, against numbers on record.

Nothing is run or timed. A change that moves a number says so in its commit,
with the new record; this writes it, for the jax that is installed:

  MMJAX_GOLDEN=write python -m pytest tests/golden
"""

import collections
import functools
import json
import math
import os
import re
from pathlib import Path

import jax
import pytest

from mmjax.build import experiment, settings
from mmjax.core import trees
from mmjax.models import heads
from mmjax.plan import hlo, memory, work
from mmjax.train import predict
from tests.golden import programs
from tests.golden.programs import BATCH, HIDDEN_PATCHES, TOKENS

RECORD = Path(__file__).with_name("programs.json")
VERSION = ".".join(jax.__version__.split(".")[:2])
# One instruction set, so that a program is the same on any x86 CPU; and no
# optimization after XLA's own, which takes most of the time.
OPTIONS = {
  "xla_cpu_max_isa": "AVX2",
  "xla_backend_optimization_level": 0,
  "xla_llvm_disable_expensive_passes": True,
}
if "xla_cpu_use_fusion_emitters" in os.environ.get("XLA_FLAGS", ""):
  OPTIONS["xla_cpu_use_fusion_emitters"] = True  # As runs have it.
COUNTED = ("convert", "copy", "dot", "gather", "scatter", "transpose")
D, L, F = programs.WIDTH, programs.LAYERS, programs.MLP
N = (programs.IMAGE // programs.PATCH) ** 2  # Patches.
Q = 3 * programs.PATCH**2  # Numbers of a patch.
CLASSES = 4


class Program:
  """A config's step, compiled for one device."""

  def __init__(self, kind, edit=lambda config: None):
    config = programs.get_config(kind)
    edit(config)
    self.made = experiment.prepare(settings.resolve(config), jax.devices()[:1])
    self.state = self.made.abstract_state
    self.batches = self.made.abstract_batches()

  @functools.cached_property
  def compiled(self):
    return self.made.lower_step().compile(OPTIONS)

  @functools.cached_property
  def text(self):
    return self.compiled.as_text()

  @functools.cached_property
  def module(self):
    return hlo.parse(self.text)

  @functools.cached_property
  def jaxpr(self):
    with predict.placement(self.made.mesh, self.made.rules):
      traced = self.made.step_fn.trace(self.state, self.batches)
    return traced.jaxpr.jaxpr

  @property
  def costs(self):
    """What is on record."""
    opcodes = re.findall(r" = (?:\(.*?\)|\S+) ([\w-]+)\(", self.text)
    counts = collections.Counter(opcodes)
    temporary = self.compiled.memory_analysis().temp_size_in_bytes
    return {name: counts[name] for name in COUNTED} | {"bytes": temporary}


@functools.cache
def program(kind):
  return Program(kind)


def equations(jaxpr, outside=""):
  """(names around it, equation), calls included."""
  for eqn in jaxpr.eqns:
    scope = f"{outside}/{eqn.source_info.name_stack}"
    yield scope, eqn
    for value in eqn.params.values():
      for item in value if isinstance(value, (tuple, list)) else [value]:
        inner = getattr(item, "jaxpr", item)
        if hasattr(inner, "eqns"):
          yield from equations(inner, scope)


@pytest.mark.parametrize("kind", programs.KINDS)
def test_costs_are_those_on_record(kind):
  record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
  costs = program(kind).costs
  if os.environ.get("MMJAX_GOLDEN") == "write":
    record.setdefault(VERSION, {})[kind] = costs
    RECORD.write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")
    return
  if VERSION not in record:
    pytest.skip(f"nothing on record for jax {VERSION}, only {sorted(record)}")

  was = record[VERSION][kind]
  moved = {
    name: f"{was[name]} -> {now}"
    for name, now in costs.items()
    if abs(now - was[name]) > (0.03 * was[name] if name == "bytes" else 0)
  }
  assert not moved, f"{kind}: {moved}. If that is meant, see {__file__}."


def block(n, context=0):
  """Products of a block and an example, forward; with a context to look at."""
  own = 4 * D * D + 2 * n * D + 2 * D * F
  if context:
    own += 2 * D * D + 2 * context * D
  return 2 * n * own + 2 * context * 2 * D * D


def tower(n):
  """Of pictures, trained; pixels get no gradient."""
  return 2 * (2 * n * Q * D) + 3 * L * block(n)


def head(k, classes):
  """Projection, norm, projection, at k positions, trained."""
  return 3 * 2 * k * D * (D + classes)


def pairs():
  """Two projections, similarities (again in the backward pass), gradients."""
  return 3 * 2 * (2 * D * programs.SHARED) + 4 * 2 * BATCH * programs.SHARED


def adapters():
  """Adapted queries and values; below the first layer nothing goes back."""
  products = 2 * (2 + 4) + 2 * (2 + 3)  # Of both adapters, last layer first.
  small = products * 2 * N * D * programs.RANK
  last = 2 * N * (4 * D * D + 2 * D * F) + 4 * 2 * N * N * D
  first = 2 * N * (D * D + 2 * D * F) + 3 * 2 * N * N * D
  forward = 2 * N * Q * D + L * block(N)
  return forward + last + first + small + 3 * 2 * D * CLASSES


def formula(kind):
  """Products of an example and step, by hand: 2 a multiply-add."""
  made = program(kind).made
  vocabulary = made.parts.info.vocab_size
  if kind == "classification":
    return tower(N) + 3 * 2 * D * CLASSES
  if kind == "two_towers":
    return tower(N) + 3 * L * block(TOKENS) + pairs()
  if kind == "captioning":
    decoder = 3 * L * block(TOKENS, context=N)
    return tower(N) + decoder + 3 * 2 * (TOKENS - 1) * D * vocabulary
  if kind == "adapters":
    return adapters()
  codes, code = programs.CODES, programs.CODE_DIM
  tokenizer = 2 * N * (Q * D + D * code + code * codes) + block(N)
  masked = made.abstract_batches()["main"]["text_hidden"].shape[1]
  return (
    tower(N - HIDDEN_PATCHES)
    + 3 * L * block(TOKENS)
    + 3 * block(N + TOKENS)
    + head(masked, vocabulary)
    + head(HIDDEN_PATCHES, codes)
    + pairs()
    + tokenizer
  )


@pytest.mark.parametrize("kind", programs.KINDS)
def test_the_compiled_step_computes_what_the_formula_says(kind):
  module = program(kind).module

  compiled = sum(
    e.times * work.flops(module, e.computation, e.instruction)
    for e in hlo.walk(module)
  )
  ratio = compiled / (BATCH * formula(kind))
  assert 0.97 <= ratio <= 1.03


@pytest.mark.parametrize("kind", programs.KINDS)
def test_no_copy_of_the_state_stays(kind):
  it = program(kind)

  header = it.text.splitlines()[0]
  aliases = re.findall(r"(?:may|must)-alias", header)
  assert len(aliases) == len(jax.tree.leaves(it.state))
  stats = it.compiled.memory_analysis()
  assert stats.alias_size_in_bytes == memory.shard_bytes(it.state)
  # What else comes out: the metrics, and a pointer to each array.
  extra = stats.output_size_in_bytes - stats.alias_size_in_bytes
  assert extra < 16 * len(aliases)


def test_logits_are_computed_at_hidden_positions_only():
  it = program("pretraining")
  info = it.made.parts.info
  hidden = it.batches["main"]["text_hidden"].shape[1]
  assert hidden < TOKENS

  arrays = {
    array.shape
    for computation in it.module.computations.values()
    for instruction in computation.values()
    for array in instruction.arrays
    if info.vocab_size in array.shape
  }
  rows = {hlo.Array("u8", s).bytes // info.vocab_size for s in arrays}
  assert BATCH * hidden in rows  # Else this looks for the wrong thing.
  assert max(rows) < BATCH * TOKENS
  codes = [
    eqn.outvars[0].aval.shape
    for scope, eqn in equations(it.jaxpr)
    if "heads_vtp" in scope and eqn.primitive.name == "dot_general"
  ]
  assert (BATCH, HIDDEN_PATCHES, programs.CODES) in codes
  assert (BATCH, N, programs.CODES) not in codes


@pytest.mark.slow
def test_logits_of_many_tokens_are_never_all_there(monkeypatch):
  def most(it):
    """Of the logits that the step makes at a time, the tokens."""
    classes = it.made.parts.info.vocab_size
    shapes = (
      variable.aval.shape
      for _, eqn in equations(it.jaxpr)
      for variable in eqn.outvars
    )
    sizes = (math.prod(s) for s in shapes if classes in s and D not in s)
    return max(sizes) // classes

  whole = BATCH * (TOKENS - 1)
  assert most(program("captioning")) == whole
  classes = program("captioning").made.parts.info.vocab_size
  monkeypatch.setattr(heads, "MOST_LOGITS", whole * classes // 4)
  # In 4 parts: 3 tokens of each text at a time.
  assert most(Program("captioning")) == BATCH * 3


def test_in_bfloat16_a_scanned_kernel_is_cast_once_and_its_gradient_once():
  def edit(config):
    config.model.precision = "bfloat16"
    config.model.encoders.image.stack = dict(scan=True)

  it = Program("classification", edit)
  layers = it.state.params["encoders_image"]["stack"]["layers"]
  kernels = collections.Counter(
    x.shape[1:]
    for name, x in trees.flatten(layers).items()
    if name.endswith("kernel")
  )
  casts = {"float32": collections.Counter(), "bfloat16": collections.Counter()}
  for scope, eqn in equations(it.jaxpr):
    if eqn.primitive.name == "convert_element_type" and "layers" in scope:
      given, made = (v[0].aval for v in (eqn.invars, eqn.outvars))
      if made.shape in kernels and given.dtype != made.dtype:
        casts[str(made.dtype)][made.shape] += 1

  assert casts["bfloat16"] == kernels
  assert casts["float32"] == kernels
