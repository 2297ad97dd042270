"""FLAVA (Singh et al. 2022, arXiv:2112.04482): three stacks, six heads.

Its tokenizer of pictures stays behind: codes are data, or of a tokenizer of
ours, for which a random one stands in.
"""

from mmjax.convert import lines
from mmjax.convert.families.clip import MEAN, STD
from mmjax.convert.families.vit import KEY, NAMES
from mmjax.convert.family import Family
from mmjax.convert.mapping import Copy, Ignored, rule
from mmjax.convert.transforms import Same, WithClass

IMAGE, TEXT = "model.encoders.image", "model.encoders.text"
FUSION, CODES = "model.fusion", "model.visual_tokenizer"
PICTURES, TEXTS, JOINT = "image_config.", "text_config.", "multimodal_config."
LOOKS, READS = "{p}image_model.embeddings", "{p}text_model.embeddings"
MATCHING, MATCHES = "heads_matching/logits", "itm_head.seq_relationship"
VTP = "vision_token_prediction"
# What predicts hidden tokens, by head: objective, config, what is given.
PREDICTING = {
  "mlm": ("masked_lm", TEXTS, ()),
  "mim": (VTP, PICTURES, ()),
  "mmm_text": ("masked_lm", TEXTS, ("image",)),
  "mmm_image": (VTP, PICTURES, ("text",)),
}


def _complete(source, has):
  """Without its tokenizer, which is not made anew on the way back either."""
  pixels = lines.complete_pixels(source, has, MEAN, STD)
  return {**pixels, "init_codebook": False}


def _tower(ours, theirs, **values):
  """Keys of an encoder, or of the fusion."""
  stack, named = f"{ours}.stack", f"{theirs}layer_norm_eps"
  return (
    *lines.fixed(ours, **values),
    *lines.size(ours, theirs),
    *lines.stack(stack, "pre"),
    lines.activation(f"{stack}.activation", f"{theirs}hidden_act", "gelu"),
    lines.key(f"{stack}.norm_epsilon", named, default=1e-12),
    lines.key(
      f"{stack}.dropout_rate", f"{theirs}hidden_dropout_prob", default=0.0
    ),
    lines.theirs(f"{theirs}qkv_bias", True),
    lines.theirs(f"{theirs}attention_probs_dropout_prob", 0.0, checked=False),
  )


def _predicting(head, name, theirs, given):
  """Keys of an objective."""
  ours, when = f"objectives.{head}", "heads"
  return (
    *lines.fixed(ours, when, name=name, given=given, head=head),
    lines.activation(
      f"{ours}.head_activation", f"{theirs}hidden_act", when=when
    ),
    lines.key(
      f"{ours}.head_norm_epsilon", f"{theirs}layer_norm_eps", when=when
    ),
  )


def _head(head):
  """Its bias is there twice."""
  theirs = f"{head}_head"
  return [
    *lines.transform(f"heads_{head}", f"{theirs}.transform"),
    *lines.linear(f"heads_{head}/logits", f"{theirs}.decoder"),
    Copy(f"{theirs}.bias", f"{theirs}.decoder.bias"),
  ]


def _stack(ours, theirs, norm):
  """Blocks, and the norm after them."""
  block, layer = (
    f"{ours}/stack/layer_{{i:02d}}",
    f"{theirs}.encoder.layer.{{i}}",
  )
  return [
    *lines.block(block, layer, key=KEY, **NAMES),
    *lines.norm(f"{ours}/{norm}", f"{theirs}.layernorm"),
    Ignored(
      rf"{theirs}\.pooler\..*", "a pooler that none of its losses trains"
    ),
  ]


def _bridges(modality):
  """From an encoder to the fusion, and to the shared space."""
  space = f"shared_space/projections_{modality}"
  return [
    *lines.linear(
      f"fusion/input_{modality}", f"{{p}}{modality}_to_mm_projection"
    ),
    *lines.linear(space, f"{{p}}{modality}_projection"),
  ]


FAMILY = Family(
  name="flava",
  keys=(
    *_tower(IMAGE, PICTURES, name="vit", pool="cls", fuse_before_norm=True),
    *_tower(TEXT, TEXTS, name="text", pool="first", fuse_before_norm=True),
    *_tower(FUSION, JOINT, name="joint", project=True, cls=True),
    *lines.fixed(FUSION, modality_embeddings=False),
    *lines.fixed(IMAGE, positions="learned", hidden="replace"),
    *lines.fixed(TEXT, positions="learned"),
    *lines.pixels(IMAGE, PICTURES, image_size=224, patch_size=16),
    lines.key("model.vocab_size", f"{TEXTS}vocab_size"),
    lines.key(f"{TEXT}.max_tokens", f"{TEXTS}max_position_embeddings"),
    lines.key("data.text.max_tokens", f"{TEXTS}max_position_embeddings"),
    lines.key(f"{TEXT}.num_segments", f"{TEXTS}type_vocab_size", default=2),
    lines.key(f"{TEXT}.embedding_norm_epsilon", f"{TEXTS}layer_norm_eps"),
    lines.key("model.shared_dim", "projection_dim", default=768),
    *lines.fixed("model.shared_projections", image="affine", text="affine"),
    *lines.fixed("objectives.contrastive", name="contrastive"),
    *lines.fixed(
      "objectives.features", "!heads", name="features", given=("text",)
    ),
    *(k for head, x in PREDICTING.items() for k in _predicting(head, *x)),
    *lines.fixed(
      "objectives.matching",
      "heads",
      name="matching",
      view="masked",
      head_tanh=True,
    ),
    *lines.fixed(CODES, "heads", name="random_projection"),
    lines.key(f"{CODES}.patch_size", f"{PICTURES}patch_size", when="heads"),
    lines.key(f"{CODES}.num_codes", f"{PICTURES}vocab_size", when="heads"),
    *lines.fixed("data.text.mask", "heads", rate=0.15),
    lines.key(
      "data.image.mask.patch_size", f"{PICTURES}patch_size", when="heads"
    ),
    lines.theirs(f"{PICTURES}num_channels", 3),
    lines.theirs(f"{PICTURES}mask_token", True),
    lines.theirs(f"{JOINT}use_cls_token", True),
    lines.theirs("init_codebook", False),
  ),
  rules=(
    rule(
      ["encoders_image/cls", "encoders_image/stem/positions/table"],
      [f"{LOOKS}.cls_token", f"{LOOKS}.position_embeddings"],
      WithClass(),
    ),
    rule("encoders_image/stem/mask_token", f"{LOOKS}.mask_token", Same(lead=2)),
    lines.patches(
      "encoders_image/stem/patches", f"{LOOKS}.patch_embeddings.projection"
    ),
    lines.text_tables("encoders_text/stem", READS, f"{TEXTS}vocab_size"),
    _stack("encoders_image", "{p}image_model", "last_norm"),
    _stack("encoders_text", "{p}text_model", "last_norm"),
    _stack("fusion", "{p}multimodal_model", "stack/norm"),
    rule("fusion/cls", "{p}multimodal_model.cls_token"),
    _bridges("image"),
    _bridges("text"),
    rule("shared_space/log_scale", "{p}logit_scale"),
    *(("heads", _head(head)) for head in PREDICTING),
    ("heads", lines.linear("heads_matching/hidden", "itm_head.pooler.dense")),
    ("heads", lines.linear(MATCHING, MATCHES)),
    Ignored(r"image_codebook\..*", "the tokenizer of pictures: codes are data"),
    Ignored(rf"{READS}\..*_ids", "0, 1, 2, ..."),
  ),
  parts={"heads": (f"{MATCHES}.weight", f"{MATCHING}/kernel")},
  num_layers={
    "encoders_text": f"{TEXTS}num_hidden_layers",
    "encoders_image": f"{PICTURES}num_hidden_layers",
    "fusion": f"{JOINT}num_hidden_layers",
  },
  heads=("heads",),
  prefix="flava.",
  architectures={"": "FlavaModel", "heads": "FlavaForPreTraining"},
  complete=_complete,
  files=lines.pixel_file("FlavaImageProcessor", PICTURES),
)
