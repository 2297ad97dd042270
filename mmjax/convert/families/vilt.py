"""ViLT (Kim et al. 2021, arXiv:2102.03334): one stack over text and patches.

Our encoders of text and pictures are its embeddings, without layers; the
fusion is its stack. Patches come in their order, by theirs in a random one,
which no other token sees.
"""

from mmjax.convert import lines
from mmjax.convert.families.vit import KEY, NAMES
from mmjax.convert.family import Family
from mmjax.convert.mapping import Copy, Ignored, rule
from mmjax.convert.transforms import Merged, Rows, Same, WithClass
from mmjax.core import errors

IMAGE, TEXT = "model.encoders.image", "model.encoders.text"
FUSION, MLM = "model.fusion", "objectives.mlm"
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
  return lines.complete_pixels(source, has)


def _files(config):
  """Its processor keeps the shape of pictures."""
  files = lines.pixel_file("ViltImageProcessor")(config)
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
    *lines.fixed(path, positions="learned", **values),
  )


FAMILY = Family(
  name="vilt",
  keys=(
    *_embeddings(TEXT, name="text", pool="first", pool_tanh=True),
    *_embeddings(IMAGE, name="vit", pool="cls", hidden="drop"),
    lines.key(f"{TEXT}.max_tokens", "max_position_embeddings", default=40),
    lines.key(f"{TEXT}.num_segments", "type_vocab_size", default=2),
    lines.key(
      f"{TEXT}.embedding_norm_epsilon", "layer_norm_eps", default=1e-12
    ),
    lines.key("model.vocab_size", "vocab_size"),
    lines.key("data.text.max_tokens", "max_position_embeddings"),
    *lines.pixels(IMAGE, image_size=384, patch_size=32),
    *lines.fixed(FUSION, name="joint"),
    *lines.size(FUSION),
    *lines.stack(f"{FUSION}.stack", "pre"),
    lines.activation(f"{FUSION}.stack.activation", "hidden_act", "gelu"),
    lines.key(f"{FUSION}.stack.norm_epsilon", "layer_norm_eps"),
    lines.dropout(f"{FUSION}.stack.dropout_rate", 0.0),
    *lines.features("text"),
    *lines.fixed("objectives.features", given=("image",)),
    *lines.fixed("objectives.features", "label", head_kind="mlp"),
    *lines.fixed(MLM, "mlm", name="masked_lm", given=("image",), tied=True),
    lines.activation(f"{MLM}.head_activation", "hidden_act", when="mlm"),
    lines.key(f"{MLM}.head_norm_epsilon", "layer_norm_eps", when="mlm"),
    *lines.fixed("data.text.mask", "mlm", rate=0.15),
    lines.theirs("num_channels", 3),
    lines.theirs("qkv_bias", True),
    lines.theirs("modality_type_vocab_size", 2),
    lines.theirs("max_image_length", -1, checked=False),  # Of larger pictures.
    lines.theirs("attention_probs_dropout_prob", 0.0, checked=False),
  ),
  rules=(
    lines.text_tables("encoders_text/stem", WORDS),
    rule(
      ["encoders_image/cls", "encoders_image/stem/positions/table"],
      ["{p}embeddings.cls_token", "{p}embeddings.position_embeddings"],
      WithClass(),
    ),
    lines.patches(
      "encoders_image/stem/patches",
      "{p}embeddings.patch_embeddings.projection",
    ),
    rule(
      ["fusion/modality_text", "fusion/modality_image"],
      "{p}embeddings.token_type_embeddings.weight",
      Merged(0, Same(lead=1)),
    ),
    lines.block(
      "fusion/stack/layer_{i:02d}", "{p}encoder.layer.{i}", key=KEY, **NAMES
    ),
    lines.norm("fusion/stack/norm", "{p}layernorm"),
    lines.linear(TANH, "{p}pooler.dense"),
    ("mlm", lines.transform("heads_mlm", f"{SCORE}.transform")),
    (
      "mlm",
      rule(
        "heads_mlm/bias",
        f"{SCORE}.decoder.bias",
        lambda c: Rows(used=c["vocab_size"], fill=lines.NEVER),
      ),
    ),
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
