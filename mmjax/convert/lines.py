"""Lines that the tables of many families have."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmjax.convert import mapping
from mmjax.convert.family import ABSENT, Key, Source
from mmjax.convert.transforms import (
  Flat,
  Matrix,
  Patches,
  Rows,
  Transform,
  WithClass,
)
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
# Logit of tokens that a model got with its tokenizer and never learned.
NEVER = -1e4
PREPROCESSOR = "preprocessor_config.json"
TOKENIZER = "tokenizer_config.json"


def key(ours: str, theirs: str, **rest: Any) -> Key:
  """A key on both sides."""
  return Key(ours, theirs, **rest)


def ours(path: str, value: Any, **rest: Any) -> Key:
  """A key of ours that has to have this value."""
  return Key(path, value=value, **rest)


def fixed(path: str, when: str = "", **values: Any) -> tuple[Key, ...]:
  """Keys of ours below a path that have to have these values."""
  return tuple(ours(f"{path}.{k}", v, when=when) for k, v in values.items())


def theirs(name: str, value: Any, **rest: Any) -> Key:
  """A key of theirs that has to have this value, if it is there."""
  return Key(theirs=name, value=value, **rest)


# What their configs usually call the size of a transformer.
SIZE = dict(
  embed_dim="hidden_size",
  num_layers="num_hidden_layers",
  num_heads="num_attention_heads",
  mlp_dim="intermediate_size",
)


def size(path: str, tower: str = "", **names: str) -> tuple[Key, ...]:
  """The size of a transformer.

  Args:
    path: of ours.
    tower: whose config it stands in, as "text_config.".
    **names: those of theirs that are not `SIZE`.
  """
  every = {**SIZE, **names}.items()
  return tuple(key(f"{path}.size.{a}", f"{tower}{b}") for a, b in every)


def filled(
  source: Source, defaults: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
  """What configs of towers leave out since it is the default; for `complete`.

  `defaults` by tower ("text_config"), or "" for the config itself.
  """
  return {
    f"{tower}.{name}" if tower else name: value
    for tower, known in defaults.items()
    for given in [source.config.get(tower, {}) if tower else source.config]
    for name, value in known.items()
    if given.get(name) is None
  }


def stack(path: str, norm_position: str) -> tuple[Key, ...]:
  """What parameters don't show of a stack of the usual blocks."""
  return (
    ours(f"{path}.norm", "layer_norm"),
    ours(f"{path}.norm_position", norm_position),
    ours(f"{path}.scan", False),
  )


def transformer(
  path: str, tower: str = "", dropout: float = 0.0, **names: str
) -> tuple[Key, ...]:
  """The size of a transformer and its blocks, by the keys of BERT's config.

  Args:
    path: of ours.
    tower: whose config it stands in, as "text_config.".
    dropout: of the residual branches, by default.
    **names: as of `size`.
  """
  blocks, epsilon = f"{path}.stack", f"{tower}layer_norm_eps"
  dropped = f"{tower}hidden_dropout_prob"
  return (
    *size(path, tower, **names),
    activation(f"{blocks}.activation", f"{tower}hidden_act", "gelu"),
    key(f"{blocks}.norm_epsilon", epsilon, default=1e-12),
    key(f"{blocks}.dropout_rate", dropped, default=dropout),
    theirs(f"{tower}attention_probs_dropout_prob", 0.0, checked=False),
  )


def text(
  path: str, tower: str = "", max_tokens: int = 512, skip: int = 0
) -> tuple[Key, ...]:
  """A text encoder whose tokens see each other, by the keys of BERT's config.

  Args:
    path: of ours.
    tower: whose config it stands in, as "text_config.".
    max_tokens: of a text, by default.
    skip: rows of positions before the first, which nobody reads.
  """
  return (
    *fixed(path, name="text", positions="learned"),
    *fixed(path, causal=False, attend_padding=False),
    key(
      f"{path}.max_tokens",
      f"{tower}max_position_embeddings",
      default=max_tokens + skip,
      into=lambda rows: rows - skip,
      back=lambda tokens: tokens + skip,
    ),
    key("model.vocab_size", f"{tower}vocab_size"),
    key(f"{path}.num_segments", f"{tower}type_vocab_size", default=2),
    key(
      f"{path}.embedding_norm_epsilon", f"{tower}layer_norm_eps", default=1e-12
    ),
  )


def token_head(
  objective: str, when: str, tower: str = "", **values: Any
) -> tuple[Key, ...]:
  """An objective, of these `values`, that predicts tokens as BERT does."""
  path, epsilon = f"objectives.{objective}", f"{tower}layer_norm_eps"
  return (
    *fixed(path, when, **values),
    activation(f"{path}.head_activation", f"{tower}hidden_act", "gelu", when),
    key(f"{path}.head_norm_epsilon", epsilon, when=when),
  )


def vit(
  path: str,
  pool: str = "cls",
  hidden: str = "drop",
  positions: str = "learned",
) -> tuple[Key, ...]:
  """The usual picture encoder, whose class token is what is pooled.

  By default without a token for hidden patches: of those there are none. What
  is "" the family says itself.
  """
  said = {"pool": pool, "hidden": hidden, "positions": positions}
  return (
    ours(f"{path}.name", "vit"),
    ours(f"{path}.stem", "patch"),
    *(ours(f"{path}.{k}", value) for k, value in said.items() if value),
    ours(f"{path}.pool_tanh", True, when="pooler"),
    *stack(f"{path}.stack", "pre"),
    *features("image"),
  )


def features(modality: str) -> tuple[Key, ...]:
  """The objective that needs no labels."""
  return (
    ours("objectives.features.name", "features"),
    ours("objectives.features.modality", modality),
  )


def activation(
  path: str, name: str, default: Any = ABSENT, when: str = ""
) -> Key:
  """The name of an activation."""
  reverse = {a: b for b, a in reversed(ACTIVATIONS.items())}
  return Key(
    path,
    name,
    default=default,
    into=lambda value: _named(value, ACTIVATIONS),
    back=lambda value: _named(value, reverse),
    when=when,
  )


def patches(ours: str, theirs: str) -> list[mapping.Rule]:
  """The map of patches: a convolution of torch whose stride is its size."""
  return [
    mapping.rule(f"{ours}/kernel", f"{theirs}.weight", Patches()),
    mapping.rule(f"{ours}/bias", f"{theirs}.bias"),
  ]


def linear(ours: str, theirs: str, num_in: int = 1) -> list[mapping.Rule]:
  """A projection with a bias, named as in torch."""
  return [
    mapping.rule(f"{ours}/kernel", f"{theirs}.weight", Matrix(num_in)),
    mapping.rule(f"{ours}/bias", f"{theirs}.bias", Flat()),
  ]


def norm(ours: str, theirs: str) -> list[mapping.Rule]:
  """A LayerNorm, named as in torch."""
  return [
    mapping.rule(f"{ours}/scale", f"{theirs}.weight"),
    mapping.rule(f"{ours}/bias", f"{theirs}.bias"),
  ]


def image_tables(encoder: str, theirs: str) -> list[mapping.Rule]:
  """Class token, positions and the map of patches, as in ViT."""
  kernel = f"{theirs}.patch_embeddings.projection"
  return [
    mapping.rule(
      [f"{encoder}/cls", f"{encoder}/stem/positions/table"],
      [f"{theirs}.cls_token", f"{theirs}.position_embeddings"],
      WithClass(),
    ),
    *patches(f"{encoder}/stem/patches", kernel),
  ]


def text_tables(
  stem: str, theirs: str, vocab: str = "vocab_size", skip: int = 0
) -> list[mapping.Rule]:
  """Embeddings of words, positions and segments, and their norm, as in BERT.

  `skip` is as of `text`.
  """
  tables = {
    "tokens": ("word", lambda c: Rows(used=c[vocab])),
    "positions": ("position", Rows(skip=skip)),
    "segments": ("token_type", None),
  }
  return [
    *(
      mapping.rule(f"{stem}/{a}/table", f"{theirs}.{b}_embeddings.weight", how)
      for a, (b, how) in tables.items()
    ),
    *norm(f"{stem}/norm", f"{theirs}.LayerNorm"),
  ]


def word_bias(ours: str, theirs: str) -> mapping.Rule:
  """Of the logits of words; those that theirs has not are never said."""
  rows = lambda c: Rows(used=c["vocab_size"], fill=NEVER)  # noqa: E731
  return mapping.rule(ours, theirs, rows)


def transform(ours: str, theirs: str) -> list[mapping.Rule]:
  """What BERT's head for hidden words has before its logits."""
  return [
    *linear(f"{ours}/hidden", f"{theirs}.dense"),
    *norm(f"{ours}/norm", f"{theirs}.LayerNorm"),
  ]


# Parts of our block by the words of `block`.
PARTS = {
  "attention_norm": "attention_norm",
  "query": "attention/query",
  "key": "attention/key",
  "value": "attention/value",
  "out": "attention/out",
  "mlp_norm": "mlp_norm",
  "hidden": "mlp/hidden",
  "mlp_out": "mlp/out",
}


def block(
  ours: str, theirs: str, unbiased: Sequence[str] = (), **names: str
) -> list[mapping.Rule]:
  """A block named as in torch: what each of `PARTS` is called there.

  Those that are `unbiased` have a kernel only.
  """
  rules = []
  for part, name in names.items():
    path, other = f"{ours}/{PARTS[part]}", f"{theirs}.{name}"
    if part.endswith("_norm"):
      rules += norm(path, other)
    else:
      kernel, bias = linear(path, other, num_in=2 if part == "out" else 1)
      rules += [kernel] if part in unbiased else [kernel, bias]
  return rules


def merged(
  block: str, weight: str, bias: str, how: Transform, bias_how: Transform
) -> list[mapping.Rule]:
  """Queries, keys and values in one kernel, and in one bias."""
  names = ("query", "key", "value")
  return [
    mapping.rule([f"{block}/{n}/kernel" for n in names], weight, how),
    mapping.rule([f"{block}/{n}/bias" for n in names], bias, bias_how),
  ]


def _named(name, table):
  if name not in table:
    raise errors.unknown("activation of config.json", name, table)
  return table[name]
