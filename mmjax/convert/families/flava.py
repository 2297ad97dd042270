"""FLAVA (Singh et al. 2022, arXiv:2112.04482): three stacks, six heads.

Its tokenizer of pictures stays behind: codes are data, or of a tokenizer of
ours, for which a random one stands in.
"""

from mmjax.convert.beside import pixels
from mmjax.convert.family import Family
from mmjax.convert.tables import keys, rules

KEYS = """
  [model.{encoders.image,encoders.text,fusion}. <-> \
    {image,text,multimodal}_config.]
  @pre
  @transformer
  <-> qkv_bias=True /init_codebook=False
  [model.encoders.text. <-> text_config.]
  @caption
  pool=first fuse_before_norm=True
  max_tokens                  <-> max_position_embeddings ? 512
  [model.encoders.image. <-> image_config.]
  @pixels_16
  name=vit pool=cls fuse_before_norm=True positions=learned hidden=replace
  <-> num_channels=3 mask_token=True /multimodal_config.use_cls_token=True
  [model.]
  fusion.name=joint fusion.{project,cls}=True fusion.modality_embeddings=False
  shared_dim                  <-> projection_dim ? 768
  shared_projections.{image,text}=affine
  /objectives.contrastive.name=contrastive
  # What else it was pretrained with, or else what needs no labels.
  [objectives. if !heads]
  features.name=features features.given=("text",)
  [objectives.{mlm,mmm_text}. <-> text_config. if heads]
  @token_head
  name=masked_lm
  [objectives.{mim,mmm_image}. <-> image_config. if heads]
  @token_head
  name=vision_token_prediction
  [objectives. if heads]
  mlm.head=mlm mmm_text.head=mmm_text mim.head=mim mmm_image.head=mmm_image
  {mlm,mim}.given=() mmm_text.given=("image",) mmm_image.given=("text",)
  matching.name=matching matching.view=masked matching.head_tanh=True
  [ <-> image_config. if heads]
  model.visual_tokenizer.name=random_projection data.text.mask.rate=0.15
  model.visual_tokenizer.num_codes <-> vocab_size
  {model.visual_tokenizer,data.image.mask}.patch_size <-> patch_size
  # The width of the head for matching.
  model.fusion.size.embed_dim <-> /hidden_size ? $width
"""
RULES = r"""
  [{encoders_image,encoders_text,fusion}/stack/layer_{i}/ <-> \
    {p}{image,text,multimodal}_model.encoder.layer.{i}.]
  @vit_block
  [encoders_image/ <-> {p}image_model.embeddings.]
  @vit_embeddings
  stem/mask_token             <-> mask_token : lead(2)
  [encoders_text/stem/ <-> {p}text_model.embeddings.]
  @bert_embeddings
  tokens/table <-> word_embeddings.weight : rows(text_config.vocab_size)
  - {p}text_model\.embeddings\..*_ids : 0, 1, 2, ...
  [ <-> {p}]
  encoders_{image,text}/last_norm <-> {image,text}_model.layernorm : norm
  fusion/stack/norm           <-> multimodal_model.layernorm : norm
  fusion/cls                  <-> multimodal_model.cls_token
  fusion/input_{image,text}   <-> {image,text}_to_mm_projection : linear
  shared_space/projections_{image,text} <-> {image,text}_projection : linear
  shared_space/log_scale      <-> logit_scale
  - {p}.*_model\.pooler\..*   : none of its losses trains it
  - image_codebook\..*        : the tokenizer of pictures: codes are data
  [heads_matching/ <-> itm_head. if heads]
  {logits,hidden}             <-> {seq_relationship,pooler.dense} : linear
  [heads_{mlm,mim,mmm_text,mmm_image}/ <-> \
    {mlm,mim,mmm_text,mmm_image}_head. if heads]
  @token_head
  logits                      <-> decoder : linear
  = bias of decoder.bias
"""
FAMILY = Family(
  name="flava",
  keys=keys(KEYS, width=lambda c: c["multimodal_config.hidden_size"]),
  rules=rules(RULES),
  num_layers={
    "encoders_text": "text_config.num_hidden_layers",
    "encoders_image": "image_config.num_hidden_layers",
    "fusion": "multimodal_config.num_hidden_layers",
  },
  prefix="flava.",
  architectures={"": "FlavaModel", "heads": "FlavaForPreTraining"},
  complete=pixels.complete_flava,
  files=pixels.file("FlavaImageProcessor", "image_config."),
)
