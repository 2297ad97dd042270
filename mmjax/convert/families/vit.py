"""ViT (Dosovitskiy et al. 2021) as transformers has it."""

from mmjax.convert.beside import pixels
from mmjax.convert.family import Family
from mmjax.convert.tables import keys, rules

FAMILY = Family(
  name="vit",
  keys=keys("""
    [model.encoders.image.]
    @vit
    @transformer
    @pixels_16
    pool=cls hidden=drop positions=learned
    pool_tanh=True if pooler
    <-> qkv_bias=True pooler_act=tanh
  """),
  rules=rules(r"""
    [encoders_image/ <-> {p}embeddings.]
    @vit_embeddings
    [encoders_image/stack/layer_{i}/ <-> {p}encoder.layer.{i}.]
    @vit_block
    [encoders_image/ <-> {p}]
    stack/norm          <-> layernorm : norm
    pooling/projection  <-> pooler.dense : linear if pooler
    []
    heads_label/logits  <-> classifier : linear if label
    - {p}embeddings\.mask_token : hides patches while pretraining
  """),
  prefix="vit.",
  architectures={"": "ViTModel", "label": "ViTForImageClassification"},
  complete=pixels.complete,
  files=pixels.file("ViTImageProcessor"),
)
