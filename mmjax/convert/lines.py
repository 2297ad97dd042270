"""Lines that the tables of many families have."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mmjax.convert import mapping
from mmjax.convert.family import ABSENT, Key, Source
from mmjax.convert.transforms import Flat, Matrix, Patches, Rows, Transform
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
HALF = [0.5, 0.5, 0.5]
IMAGENET = dict(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])


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


def pixels(path: str, tower: str = "", **defaults: Any) -> tuple[Key, ...]:
  """The size of pictures, and how `complete_pixels` found them normalised."""
  size = {k: dict(default=v) for k, v in defaults.items()}
  return (
    key(
      f"{path}.image_size", f"{tower}image_size", **size.get("image_size", {})
    ),
    key(
      f"{path}.patch_size", f"{tower}patch_size", **size.get("patch_size", {})
    ),
    key(f"{path}.pixel_mean", "image_mean", into=tuple, back=list),
    key(f"{path}.pixel_std", "image_std", into=tuple, back=list),
    key("data.image.size", f"{tower}image_size"),
  )


def complete_pixels(
  source: Source,
  has: set[str],
  mean: Sequence[float] = HALF,
  std: Sequence[float] = HALF,
) -> dict[str, Any]:
  """How pixels are normalised stands in a file of its own."""
  said = source.beside.get(PREPROCESSOR, {})
  return {
    "image_mean": said.get("image_mean", list(mean)),
    "image_std": said.get("image_std", list(std)),
  }


def pixel_file(
  kind: str, tower: str = ""
) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
  """That file, of an image processor of `transformers`."""

  def files(config):
    side = config[f"{tower}image_size"]
    return {
      PREPROCESSOR: dict(
        image_processor_type=kind,
        do_resize=True,
        size=dict(height=side, width=side),
        do_rescale=True,
        rescale_factor=1 / 255,
        do_normalize=True,
        image_mean=config["image_mean"],
        image_std=config["image_std"],
      )
    }

  return files


def dropout(path: str, default: float) -> Key:
  """Of the residual branches."""
  return key(path, "hidden_dropout_prob", default=default)


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


def text_tables(
  stem: str, theirs: str, vocab: str = "vocab_size"
) -> list[mapping.Rule]:
  """Embeddings of words, positions and segments, and their norm, as in BERT."""
  rows = lambda c: Rows(used=c[vocab])  # noqa: E731
  names = {"positions": "position", "segments": "token_type"}
  return [
    mapping.rule(
      f"{stem}/tokens/table", f"{theirs}.word_embeddings.weight", rows
    ),
    *(
      mapping.rule(f"{stem}/{a}/table", f"{theirs}.{b}_embeddings.weight")
      for a, b in names.items()
    ),
    *norm(f"{stem}/norm", f"{theirs}.LayerNorm"),
  ]


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


def block(ours: str, theirs: str, **names: str) -> list[mapping.Rule]:
  """A block named as in torch: what each of `PARTS` is called there."""
  rules = []
  for part, name in names.items():
    path, other = f"{ours}/{PARTS[part]}", f"{theirs}.{name}"
    if part.endswith("_norm"):
      rules += norm(path, other)
    else:
      rules += linear(path, other, num_in=2 if part == "out" else 1)
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
