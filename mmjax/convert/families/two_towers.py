"""What CLIP and its relatives share: a tower of pictures and one of texts.

Their configs are called as transformers does, whoever wrote the weights.
"""

from mmjax.convert import lines, pixels
from mmjax.convert.family import Key
from mmjax.convert.mapping import AnyRule, Ignored, rule
from mmjax.convert.transforms import Patches, Rows

IMAGE, TEXT = "model.encoders.image", "model.encoders.text"
PICTURES, TEXTS = "vision_config.", "text_config."
LAYERS = {
  "encoders_text": f"{TEXTS}num_hidden_layers",
  "encoders_image": f"{PICTURES}num_hidden_layers",
}
TABLES = "encoders_text/stem/tokens/table", "encoders_text/stem/positions/table"
POSITIONS = "encoders_image/stem/positions/table"
KERNEL = "encoders_image/stem/patches/kernel"


def keys(loss: str) -> tuple[Key, ...]:
  """Both configs, and the objective with which they were trained."""
  made = [
    lines.ours(f"{TEXT}.name", "text"),
    lines.ours(f"{TEXT}.positions", "learned"),
    lines.ours(f"{TEXT}.pool", "last"),
    *lines.stack(f"{TEXT}.stack", "pre"),
    *pixels.keys(IMAGE, PICTURES),
    lines.key(f"{TEXT}.max_tokens", f"{TEXTS}max_position_embeddings"),
    lines.key("data.text.max_tokens", f"{TEXTS}max_position_embeddings"),
    lines.key("model.vocab_size", f"{TEXTS}vocab_size"),
    lines.theirs(f"{PICTURES}num_channels", 3),
    lines.ours("objectives.contrastive.name", "contrastive"),
    lines.ours("objectives.contrastive.loss", loss),
    # Theirs is limited while it is trained, if at all.
    lines.ours("model.shared_max_scale", 0.0, checked=False),
  ]
  for ours, theirs in ((TEXT, TEXTS), (IMAGE, PICTURES)):
    made += [
      *lines.size(ours, theirs),
      lines.activation(f"{ours}.stack.activation", f"{theirs}hidden_act"),
      lines.key(f"{ours}.stack.norm_epsilon", f"{theirs}layer_norm_eps"),
      lines.theirs(f"{theirs}attention_dropout", 0.0, checked=False),
    ]
  return tuple(made)


def tables(tokens: str, positions: str, patches: str) -> list[AnyRule]:
  """The tables of texts, and the kernel of patches."""
  rows = lambda c: Rows(used=c[f"{TEXTS}vocab_size"])  # noqa: E731
  return [
    rule(TABLES[0], tokens, rows),
    rule(TABLES[1], positions),
    rule(KERNEL, patches, Patches()),
    Ignored(r".*\.embeddings\.position_ids", "0, 1, 2, ..."),
  ]


def layers(modality: str, theirs: str, norm: str) -> list[AnyRule]:
  """The blocks of a tower, and the norm after them, as transformers has it."""
  return [
    *lines.block(
      f"encoders_{modality}/stack/layer_{{i:02d}}",
      f"{theirs}.encoder.layers.{{i}}",
      attention_norm="layer_norm1",
      query="self_attn.q_proj",
      key="self_attn.k_proj",
      value="self_attn.v_proj",
      out="self_attn.out_proj",
      mlp_norm="layer_norm2",
      hidden="mlp.fc1",
      mlp_out="mlp.fc2",
    ),
    *lines.norm(f"encoders_{modality}/stack/norm", f"{theirs}.{norm}"),
  ]
