"""FLAVA (Singh et al. 2022, arXiv:2112.04482): three stacks, six heads.

Its tokenizer of pictures stays behind: codes are data, or of a tokenizer of
ours, for which a random one stands in.
"""

from mmjax.convert import lines, pixels
from mmjax.convert.families.clip import MEAN, STD
from mmjax.convert.families.vit import NAMES
from mmjax.convert.family import Family
from mmjax.convert.mapping import Copy, Ignored, rule
from mmjax.convert.transforms import Same

IMAGE, TEXT = "model.encoders.image", "model.encoders.text"
FUSION, CODES = "model.fusion", "model.visual_tokenizer"
PICTURES, TEXTS, JOINT = "image_config.", "text_config.", "multimodal_config."
LOOKS, READS = "{p}image_model.embeddings", "{p}text_model.embeddings"
SPACE = "shared_space/projections"
MATCHING, MATCHES = "heads_matching/logits", "itm_head.seq_relationship"
VTP = "vision_token_prediction"
# What predicts hidden tokens, by head: its config, and our objective.
PREDICTING = {
  "mlm": (TEXTS, dict(name="masked_lm", given=())),
  "mim": (PICTURES, dict(name=VTP, given=())),
  "mmm_text": (TEXTS, dict(name="masked_lm", given=("image",))),
  "mmm_image": (PICTURES, dict(name=VTP, given=("text",))),
}
MATCHED = dict(name="matching", view="masked", head_tanh=True)


def _complete(source, has):
  """Without its tokenizer, which is not made anew on the way back either."""
  made = pixels.complete(source, has, MEAN, STD)
  return {**made, "init_codebook": False}


def _tower(ours, theirs, **values):
  """Keys of an encoder, or of the fusion."""
  return (
    *lines.fixed(ours, **values),
    *lines.transformer(ours, theirs),
    *lines.stack(f"{ours}.stack", "pre"),
    lines.theirs(f"{theirs}qkv_bias", True),
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
  blocks, layers = ours + "/stack/layer_{i:02d}", theirs + ".encoder.layer.{i}"
  return [
    *lines.block(blocks, layers, **NAMES),
    *lines.norm(f"{ours}/{norm}", f"{theirs}.layernorm"),
    Ignored(rf"{theirs}\.pooler\..*", "none of its losses trains it"),
  ]


FAMILY = Family(
  name="flava",
  keys=(
    *_tower(IMAGE, PICTURES, name="vit", pool="cls", fuse_before_norm=True),
    *_tower(TEXT, TEXTS, pool="first", fuse_before_norm=True),
    *lines.text(TEXT, TEXTS),
    *_tower(FUSION, JOINT, name="joint", project=True, cls=True),
    *lines.fixed(FUSION, modality_embeddings=False),
    *lines.fixed(IMAGE, positions="learned", hidden="replace"),
    *pixels.keys(IMAGE, PICTURES, image_size=224, patch_size=16),
    lines.key("data.text.max_tokens", f"{TEXTS}max_position_embeddings"),
    lines.key(
      f"{FUSION}.size.embed_dim",
      "hidden_size",  # Of the head for matching.
      default=lambda c: c[f"{JOINT}hidden_size"],
      when="heads",
    ),
    lines.key("model.shared_dim", "projection_dim", default=768),
    *lines.fixed("model.shared_projections", image="affine", text="affine"),
    *lines.fixed("objectives.contrastive", name="contrastive"),
    *lines.fixed(
      "objectives.features", "!heads", name="features", given=("text",)
    ),
    *(
      key
      for head, (tower, values) in PREDICTING.items()
      for key in lines.token_head(head, "heads", tower, head=head, **values)
    ),
    *lines.fixed("objectives.matching", "heads", **MATCHED),
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
    lines.image_tables("encoders_image", LOOKS),
    rule("encoders_image/stem/mask_token", f"{LOOKS}.mask_token", Same(lead=2)),
    lines.text_tables("encoders_text/stem", READS, f"{TEXTS}vocab_size"),
    _stack("encoders_image", "{p}image_model", "last_norm"),
    _stack("encoders_text", "{p}text_model", "last_norm"),
    _stack("fusion", "{p}multimodal_model", "stack/norm"),
    rule("fusion/cls", "{p}multimodal_model.cls_token"),
    lines.linear("fusion/input_image", "{p}image_to_mm_projection"),
    lines.linear("fusion/input_text", "{p}text_to_mm_projection"),
    lines.linear(f"{SPACE}_image", "{p}image_projection"),
    lines.linear(f"{SPACE}_text", "{p}text_projection"),
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
  files=pixels.file("FlavaImageProcessor", PICTURES),
)
