"""What the words behind the colons of tables mean: how one becomes another.

`WAYS` are of values of configs, `ARRAYS` and `MODULES` of weights.
"""

from collections.abc import Callable
from typing import Any

from mmjax.convert import transforms
from mmjax.convert.transforms import Flat, Matrix, Merged, Patches, Same
from mmjax.core import errors

# Their names of activations -> ours.
ACTIVATIONS = {
  "gelu": "gelu",
  "gelu_new": "gelu_tanh",
  "gelu_pytorch_tanh": "gelu_tanh",
  "quick_gelu": "quick_gelu",
  "relu": "relu",
  "silu": "silu",
}
_THEIRS = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
# Logit of tokens that a model got with its tokenizer and never learned.
NEVER = -1e4


def _named(name, table):
  if name not in table:
    raise errors.unknown("activation of config.json", name, table)
  return table[name]


Way = tuple[Callable[[Any], Any], Callable[[Any], Any]]
WAYS: dict[str, Way] = {
  "": (lambda value: value, lambda value: value),
  "activation": (
    lambda name: _named(name, ACTIVATIONS),
    lambda name: _named(name, _THEIRS),
  ),
  "tuple": (tuple, list),
}
ARRAYS: dict[str, Callable[..., transforms.Transform]] = {
  "absent": lambda used: transforms.Absent(used, NEVER),
  "class": transforms.WithClass,
  "class_flat": lambda: transforms.WithClass(lead=False),
  "flat": Flat,
  "lead": lambda count: Same(lead=count),
  "logits": lambda used: transforms.Rows(used=used, fill=NEVER),
  "matrix": Matrix,
  "no_class": transforms.WithoutClass,
  "patches": Patches,
  "rows": lambda used: transforms.Rows(used=used),
  "same": Same,
  "skip": lambda count: transforms.Rows(skip=count),
  "stacked": lambda: Merged(0, Same(lead=1)),
}
# How the names of a module go on, ours and theirs, and how each becomes the
# other. The numbers are axes of ours that are summed over.
Module = Callable[..., tuple[tuple[str, str, transforms.Transform], ...]]
MODULES: dict[str, Module] = {
  "linear": lambda num_in=1: (
    ("kernel", ".weight", Matrix(num_in)),
    ("bias", ".bias", Flat()),
  ),
  "norm": lambda: (("scale", ".weight", Same()), ("bias", ".bias", Same())),
  "conv": lambda: (("kernel", ".weight", Patches()), ("bias", ".bias", Same())),
  "conv1d": lambda width: (
    ("kernel", ".weight", transforms.Windows(width)),
    ("bias", ".bias", Same()),
  ),
  # GPT-2's, saved as (in, out).
  "transposed": lambda num_in=1: (
    ("kernel", ".weight", Matrix(num_in, transposed=False)),
    ("bias", ".bias", Flat()),
  ),
  "transposed_merged": lambda: (
    ("kernel", ".weight", Merged(1, Matrix(transposed=False))),
    ("bias", ".bias", Merged(0, Flat())),
  ),
  # Several of ours in one: queries, keys and values, or gate and hidden.
  "merged": lambda: (
    ("kernel", ".weight", Merged(0, Matrix())),
    ("bias", ".bias", Merged(0, Flat())),
  ),
  "in_proj": lambda: (
    ("kernel", "_weight", Merged(0, Matrix())),
    ("bias", "_bias", Merged(0, Flat())),
  ),
  # Flax's own.
  "flax": lambda: (("kernel", "/kernel", Same()), ("bias", "/bias", Same())),
  "flax_conv": lambda: (
    ("kernel", "/kernel", Patches(torch=False)),
    ("bias", "/bias", Same()),
  ),
  "flax_norm": lambda: (("scale", "/scale", Same()), ("bias", "/bias", Same())),
}
# Words that take all names of a line at once.
TOGETHER = (
  "class",
  "class_flat",
  "in_proj",
  "merged",
  "stacked",
  "transposed_merged",
)
