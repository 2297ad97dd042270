"""ViLT (Kim et al. 2021, arXiv:2102.03334): one stack over text and patches.

Our encoders of text and pictures are its embeddings, without layers; the
fusion is its stack. Patches come in their order, by theirs in a random one,
which no other token sees.
"""

from mmjax.convert import lines, pixels
from mmjax.convert.families.vit import NAMES
from mmjax.convert.family import Family
from mmjax.convert.mapping import Copy, Ignored, rule
from mmjax.convert.transforms import Merged, Same
from mmjax.core import errors

IMAGE, TEXT = "model.encoders.image", "model.encoders.text"
FUSION, STACK = "model.fusion", "fusion/stack"
WORDS, SCORE = "{p}embeddings.text_embeddings", "mlm_score"
TANH, LOGITS = "encoders_text/pooling/projection", "heads_label/logits"


def _complete(source, has):
  """Refuses heads that models here lack."""
  for name in ("classifier.weight", "rank_output.weight"):
    if name in source.specs:
      raise errors.UserError(
        f"This ViLT has {name!r}, to classify tokens or rank pairs, which "
        "models here don't: convert its backbone (ViltModel)."
      )
  return pixels.complete(source, has)


def _files(config):
  """Its processor keeps the shape of pictures."""
  files = pixels.file("ViltImageProcessor")(config)
  size = dict(shortest_edge=config["image_size"])
  files[lines.PREPROCESSOR] |= dict(
    size=size, size_divisor=config["patch_size"], do_pad=True
  )
  return files


def _embeddings(path, **values):
  """An encoder without layers."""
  return (
    *(k for k in lines.size(path) if k.theirs != lines.SIZE["num_layers"]),
    *lines.stack(f"{path}.stack", "pre"),
    *lines.fixed(f"{path}.size", num_layers=0),
    *lines.fixed(f"{path}.stack", final_norm=False),
    *lines.fixed(path, **values),
  )


FAMILY = Family(
  name="vilt",
  keys=(
    *_embeddings(TEXT, pool="first", pool_tanh=True),
    *lines.text(TEXT, max_tokens=40),
    lines.key("data.text.max_tokens", "max_position_embeddings"),
    *_embeddings(IMAGE, name="vit", pool="cls", hidden="drop"),
    *lines.fixed(IMAGE, positions="learned"),
    *pixels.keys(IMAGE, image_size=384, patch_size=32),
    *lines.fixed(FUSION, name="joint"),
    *lines.transformer(FUSION),
    *lines.stack(f"{FUSION}.stack", "pre"),
    *lines.features("text"),
    *lines.fixed("objectives.features", given=("image",)),
    *lines.fixed("objectives.features", "label", head_kind="mlp"),
    *lines.token_head(
      "mlm", "mlm", name="masked_lm", given=("image",), tied=True
    ),
    *lines.fixed("data.text.mask", "mlm", rate=0.15),
    lines.theirs("num_channels", 3),
    lines.theirs("qkv_bias", True),
    lines.theirs("modality_type_vocab_size", 2),
    lines.theirs("max_image_length", -1, checked=False),  # Of larger pictures.
  ),
  rules=(
    lines.text_tables("encoders_text/stem", WORDS),
    lines.image_tables("encoders_image", "{p}embeddings"),
    rule(
      ["fusion/modality_text", "fusion/modality_image"],
      "{p}embeddings.token_type_embeddings.weight",
      Merged(0, Same(lead=1)),
    ),
    lines.block(STACK + "/layer_{i:02d}", "{p}encoder.layer.{i}", **NAMES),
    lines.norm(f"{STACK}/norm", "{p}layernorm"),
    lines.linear(TANH, "{p}pooler.dense"),
    ("mlm", lines.transform("heads_mlm", f"{SCORE}.transform")),
    ("mlm", lines.word_bias("heads_mlm/bias", f"{SCORE}.decoder.bias")),
    Copy(f"{SCORE}.decoder.weight", f"{WORDS}.word_embeddings.weight"),
    Copy(f"{SCORE}.bias", f"{SCORE}.decoder.bias"),
    ("label", lines.linear("heads_label/hidden", "classifier.0")),
    ("label", lines.norm("heads_label/norm", "classifier.1")),
    ("label", lines.linear(LOGITS, "classifier.3")),
    Ignored(rf"{WORDS}\.position_ids", "0, 1, 2, ..."),
  ),
  parts={
    "mlm": (f"{SCORE}.transform.dense.weight", "heads_mlm/hidden/kernel"),
    "label": ("classifier.3.weight", f"{LOGITS}/kernel"),
  },
  num_layers="num_hidden_layers",
  heads=("label", "mlm"),
  prefix="vilt.",
  architectures={
    "": "ViltModel",
    "label": "ViltForQuestionAnswering",
    "mlm": "ViltForMaskedLM",
  },
  complete=_complete,
  files=_files,
)
