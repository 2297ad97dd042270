"""SigLIP (Zhai et al. 2023, arXiv:2303.15343) as transformers has it.

And SigLIP 2 (Tschannen et al. 2025, arXiv:2502.14786) of a fixed size, which
is saved as SigLIP. Its texts are small letters, SigLIP's without punctuation
too: tokenizers that do not see to that themselves want them so.
"""

from mmjax.convert.beside import pixels, texts
from mmjax.convert.family import TOWERS, Family
from mmjax.convert.tables import keys, rules

KEYS = """
  # "siglip2" takes pictures of any shape (NaFlex), and resizes its positions.
  <-> model_type=siglip
  @contrastive
  objectives.contrastive.loss=sigmoid
  data.text.bos=False
  data.text.fill        <-> text_fill
  model.shared_projections.text=affine model.shared_projections.image=none
  [model.encoders.text. <-> text_config.]
  @text_tower
  size.embed_dim        <-> hidden_size ? 768
  size.num_heads        <-> num_attention_heads ? 12
  size.mlp_dim          <-> intermediate_size ? 3072
  stack.activation      <-> hidden_act ? gelu_pytorch_tanh : activation
  stack.norm_epsilon    <-> layer_norm_eps ? 1e-6
  max_tokens            <-> max_position_embeddings ? 64
  /model.vocab_size     <-> vocab_size ? 32000
  causal=False attend_padding=True
  [model.encoders.image. <-> vision_config.]
  @image_tower
  patch_size            <-> patch_size ? 16
  pool=map patch_bias=True input_norm=False
  # Those of the head are fixed.
  stack.activation=gelu_tanh stack.norm_epsilon=1e-6
  <-> hidden_act=gelu_pytorch_tanh layer_norm_eps=1e-6 vision_use_head=True
  /model.shared_dim     <-> /text_config.projection_size ? $width
"""
FAMILY = Family(
  name="siglip",
  keys=keys(KEYS, width=lambda c: c["text_config.hidden_size"]),
  rules=rules("""
    @towers
    [encoders_image/stem/ <-> vision_model.embeddings.]
    patches                     <-> patch_embedding : conv
    positions/table             <-> position_embedding.weight
    [encoders_image/pooling/ <-> vision_model.head.]
    query                       <-> probe
    norm                        <-> layernorm : norm
    attention/{query,key,value} <-> attention.in_proj : in_proj
    attention/out               <-> attention.out_proj : linear(2)
    mlp/{hidden,out}            <-> mlp.fc{1,2} : linear
    [shared_space/]
    projections_text            <-> text_model.head : linear
    {log_scale,logit_bias}      <-> logit_{scale,bias} : flat
  """),
  num_layers=TOWERS,
  architectures={"": "SiglipModel"},
  recognizes=lambda s: s.config.get("model_type") in ("siglip", "siglip2"),
  complete=texts.complete_siglip,
  files=pixels.file("SiglipImageProcessor", "vision_config."),
)
