"""What a trained model gives, as functions of its parameters and of fields.

All that one pass computes: what encoders make of a modality, the logits of
heads. `stablehlo.py` writes them for elsewhere.
"""

import dataclasses
import functools
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mmjax.build import embedding, prompts
from mmjax.build import parts as parts_lib
from mmjax.core import trees
from mmjax.core.batch import FieldSpec
from mmjax.core.interfaces import Apply
from mmjax.objectives.classification import Classification
from mmjax.objectives.features import Features
from mmjax.objectives.forward_once import ForwardOnce
from mmjax.objectives.masked_lm import MaskedLM
from mmjax.train import model_call

Outputs = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Program:
  """A function of the model: its outputs, of what fields of a batch."""

  task: str  # Whose data have the fields.
  reads: tuple[str, ...]  # Modalities.
  run: Callable[[Apply], Outputs]

  def specs(self, parts: parts_lib.Parts) -> dict[str, FieldSpec]:
    """The fields that it takes."""
    known = {m + c for m in self.reads for c in ("", *prompts.COMPANIONS)}
    specs = parts.fields[self.task]
    return {n: s for n, s in specs.items() if n in known}

  def function(
    self, parts: parts_lib.Parts
  ) -> Callable[[Mapping[str, Any], Mapping[str, Any]], Outputs]:
    """The function itself: of parameters by name, and of fields."""

    def run(params, inputs):
      whole = {name: jnp.asarray(x, jnp.float32) for name, x in params.items()}
      variables = {"params": trees.unflatten(whole)}
      call = model_call.ModelCall(
        parts.model, variables, jax.random.key(0), train=False
      )
      made = self.run(ForwardOnce(call, inputs, train=False))
      return {name: _readable(x) for name, x in made.items()}

    return run


def programs(
  parts: parts_lib.Parts, params: Collection[str]
) -> dict[str, Program]:
  """All that a model gives, by name.

  An encoder's, named after its modality, gives its `tokens` and their `mask`,
  `pooled`, and `shared`, its vector in the shared space, if it has learned
  these. A head's gives its `logits`: of an example, of each token (masked
  words), or of the token that comes next.

  Args:
    parts: of the run.
    params: names of its parameters.
  """
  found = {}
  for task, specs in parts.fields.items():
    for name, encoder in parts.model.encoders.items():
      if name in specs and name not in found:
        pools = embedding.pools(name, encoder, params)
        run = functools.partial(_encoded, modality=name, pools=pools)
        found[name] = Program(task, (name,), run)
  for item in parts.objectives.values():
    for head in item.objective.heads(parts.info):
      made = _head(item.objective, head)
      if made and head not in found:
        found[head] = Program(item.task, *made)
  return found


def _readable(x):
  """In a type that npz has."""
  return x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x


def _encoded(apply, *, modality, pools):
  sequence = apply("encode", modality)
  made = {"tokens": sequence.x, "mask": sequence.mask}
  if "pooled" in pools:
    made["pooled"] = apply("pool", modality)
  if "shared" in pools:
    made["shared"] = apply("project", modality)
  return made


def _head(objective, head):
  """What a head reads, and what it gives; None = it is not for one pass."""
  given = tuple(getattr(objective, "given", ()))
  decoding = getattr(objective, "decoding", None)
  if isinstance(objective, (Classification, Features)):
    name = objective.modality
    run = functools.partial(_classes, head=head, name=name, given=given)
  elif isinstance(objective, MaskedLM):
    name = objective.text
    run = functools.partial(_words, head=head, name=name, given=given)
  elif decoding and decoding.mode == "causal" and decoding.head == head:
    name, given = decoding.text, decoding.given
    run = functools.partial(_next, decoding=decoding)
  else:
    return None
  return (name, *(m for m in given if m != name)), run


def _classes(apply, *, head, name, given):
  pooled = apply("pool", name, *([given] if given else []))
  return {"logits": apply("head", head, pooled)}


def _words(apply, *, head, name, given):
  if given:
    sequence = apply("fuse", tuple(sorted({name, *given})))[name]
  else:
    sequence = apply("encode", name)
  return {"logits": apply("head", head, sequence.content)}


def _next(apply, *, decoding):
  sequence = apply(
    "decode", decoding.text, decoding.given, decoding.mode, decoding.fused
  )
  return {"logits": apply("head", decoding.head, sequence.content)}
