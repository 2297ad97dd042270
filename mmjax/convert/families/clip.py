"""CLIP (Radford et al. 2021, arXiv:2103.00020) as transformers has it.

A text is pooled at its end token: by us the last that counts, by theirs the
first of that id, or the highest id. A tokenizer of CLIP makes these the same.
"""

from mmjax.convert.beside import pixels, texts
from mmjax.convert.family import TOWERS, Family
from mmjax.convert.tables import keys, rules

KEYS = keys("""
  [model.encoders.text. <-> text_config.]
  @text_tower
  size.embed_dim        <-> hidden_size ? 512
  size.num_heads        <-> num_attention_heads ? 8
  size.mlp_dim          <-> intermediate_size ? 2048
  stack.activation      <-> hidden_act ? quick_gelu : activation
  stack.norm_epsilon    <-> layer_norm_eps ? 1e-5
  max_tokens            <-> max_position_embeddings ? 77
  /model.vocab_size     <-> vocab_size ? 49408
  causal=True attend_padding=False
  [model.encoders.image. <-> vision_config.]
  @image_tower
  stack.activation      <-> hidden_act ? quick_gelu : activation
  stack.norm_epsilon    <-> layer_norm_eps ? 1e-5
  patch_size            <-> patch_size ? 32
  pool=cls patch_bias=False input_norm=True
  []
  @contrastive
  objectives.contrastive.loss=info_nce
  model.shared_dim      <-> projection_dim ? 512
""")
FAMILY = Family(
  name="clip",
  keys=KEYS,
  rules=rules("""
    @towers
    [encoders_image/ <-> vision_model.]
    {cls,stem/positions/table} <-> \
      embeddings.{class_embedding,position_embedding.weight} : class_flat
    stem/patches/kernel   <-> embeddings.patch_embedding.weight : patches
    first_norm            <-> pre_layrnorm : norm
    [shared_space/]
    projections_{image,text}/kernel <-> {visual,text}_projection.weight : matrix
    log_scale             <-> logit_scale
  """),
  num_layers=TOWERS,
  architectures={"": "CLIPModel"},
  complete=pixels.complete_clip,
  ending=texts.end_clip,
  files=pixels.file("CLIPImageProcessor", "vision_config."),
)
