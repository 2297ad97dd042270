"""ViT (Dosovitskiy et al. 2021) as transformers has it."""

from mmjax.convert import family as f
from mmjax.convert.mapping import Ignored, rule
from mmjax.convert.transforms import Patches, WithClass

IMAGE, OURS = "model.encoders.image", "encoders_image"
BLOCK, LAYER = f"{OURS}/stack/layer_{{i:02d}}", "{p}encoder.layer.{i}"
HALF = [0.5, 0.5, 0.5]


def _complete(source, has):
  """How pixels are normalised stands in a file of its own."""
  said = source.beside.get("preprocessor_config.json", {})
  return {
    "image_mean": said.get("image_mean", HALF),
    "image_std": said.get("image_std", HALF),
  }


def _files(config):
  side = config["image_size"]
  return {
    "preprocessor_config.json": dict(
      image_processor_type="ViTImageProcessor",
      do_resize=True,
      size=dict(height=side, width=side),
      do_rescale=True,
      rescale_factor=1 / 255,
      do_normalize=True,
      image_mean=config["image_mean"],
      image_std=config["image_std"],
    )
  }


FAMILY = f.Family(
  name="vit",
  keys=(
    *f.vit(IMAGE),
    *f.size(IMAGE),
    f.key(f"{IMAGE}.image_size", "image_size", default=224),
    f.key(f"{IMAGE}.patch_size", "patch_size", default=16),
    f.key(f"{IMAGE}.pixel_mean", "image_mean", into=tuple, back=list),
    f.key(f"{IMAGE}.pixel_std", "image_std", into=tuple, back=list),
    f.activation(f"{IMAGE}.stack.activation", "hidden_act", "gelu"),
    f.key(f"{IMAGE}.stack.norm_epsilon", "layer_norm_eps", default=1e-12),
    f.key(f"{IMAGE}.stack.dropout_rate", "hidden_dropout_prob", default=0.0),
    f.key("data.image.size", "image_size"),
    f.theirs("num_channels", 3),
    f.theirs("qkv_bias", True),
    f.theirs("pooler_act", "tanh"),
    f.theirs("attention_probs_dropout_prob", 0.0, checked=False),
  ),
  rules=(
    rule(
      [f"{OURS}/cls", f"{OURS}/stem/positions/table"],
      ["{p}embeddings.cls_token", "{p}embeddings.position_embeddings"],
      WithClass(),
    ),
    rule(
      f"{OURS}/stem/patches/kernel",
      "{p}embeddings.patch_embeddings.projection.weight",
      Patches(),
    ),
    rule(
      f"{OURS}/stem/patches/bias",
      "{p}embeddings.patch_embeddings.projection.bias",
    ),
    Ignored(r"{p}embeddings\.mask_token", "hides patches while pretraining"),
    f.block(
      BLOCK,
      LAYER,
      attention_norm="layernorm_before",
      query="attention.attention.query",
      key="attention.attention.key",
      value="attention.attention.value",
      out="attention.output.dense",
      mlp_norm="layernorm_after",
      hidden="intermediate.dense",
      mlp_out="output.dense",
    ),
    f.norm(f"{OURS}/stack/norm", "{p}layernorm"),
    ("pooler", f.linear(f"{OURS}/pooling/projection", "{p}pooler.dense")),
    ("label", f.linear("heads_label/logits", "classifier")),
  ),
  parts={
    "pooler": ("{p}pooler.dense.weight", f"{OURS}/pooling/projection/kernel"),
    "label": ("classifier.weight", "heads_label/logits/kernel"),
  },
  num_layers="num_hidden_layers",
  heads=("label",),
  prefix="vit.",
  architectures={"": "ViTModel", "label": "ViTForImageClassification"},
  complete=_complete,
  files=_files,
)
