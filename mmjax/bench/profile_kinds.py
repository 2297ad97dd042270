"""To which kind of work an operation belongs, by the names around it.

Linen names what a module computes by the module's path, JAX what a transform
adds by the transform: "transpose(jvp(Model.encode))/encoders_text/stack/
layer_00/attention/query" is a part of attention's backward pass. The innermost
name that says something decides of the kind, and the outermost of which part
of the model it is.
"""

import re
from collections.abc import Mapping

OTHER = "other"
OPTIMIZER = "optimizer"
COLLECTIVES = "collectives"
INFEED = "infeed"

# Names of modules and scopes -> kind; the first that matches a name wins.
NAMES: Mapping[str, str] = {
  "norm": r"(.*_)?norm",
  "attention": r"(.*_)?attention",
  "mlp": r"(.*_)?mlp(_.*)?",
  "embedding": (
    r"stem|tokens|patches|positions|.*_positions|segments|restore(_.*)?|input"
    r"|input_.*"
  ),
  "heads and losses": (
    r"heads_.*|logits|objective_.*|shared_space|projections_.*|pooling"
    r"|codebook|to_code|from_code|pixels"
  ),
  OPTIMIZER: r"optimizer",
}
KINDS = (*NAMES, COLLECTIVES, INFEED, OTHER)

# Parts of the model, or what no part of it computes; the first that is found.
PARTS = (
  r"(encoders|decoders|tokenizers|heads|teacher)_.*"
  r"|fusion|visual_tokenizer|shared_space",
  r"objective_.*|optimizer",
)

# Opcodes of compiled programs, also with -start and -done after them.
COLLECTIVE_OPCODES = (
  "all-gather",
  "all-reduce",
  "all-to-all",
  "collective-broadcast",
  "collective-permute",
  "ragged-all-to-all",
  "reduce-scatter",
)


def kind_of(scope: str) -> str:
  """The kind of what is computed under these names."""
  for name in reversed(_names(scope)):
    for kind, pattern in NAMES.items():
      if re.fullmatch(pattern, name):
        return kind
  return OTHER


def part_of(scope: str) -> str:
  """The part of the model that computes it, else the objective."""
  for pattern in PARTS:
    for name in _names(scope):
      if re.fullmatch(pattern, name):
        return name
  return OTHER


def _names(scope):
  # Methods beside `__call__` are "module.method", what a step is given
  # "state.params['module']['kernel']".
  return re.split(r"[/().\[\]'\\]+", scope)


def is_collective(opcode: str) -> bool:
  """Whether devices send each other something."""
  return re.sub(r"-(start|done)$", "", opcode) in COLLECTIVE_OPCODES
