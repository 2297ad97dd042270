"""BEiT (Bao et al. 2022), whose positions are mostly relative.

Where patches are pooled, or nothing is, the class token is one more token that
only attention uses: a register.
"""

from mmjax.convert.beside import pixels
from mmjax.convert.family import Family
from mmjax.convert.tables import keys, rules

FAMILY = Family(
  name="beit",
  keys=keys("""
    [model.encoders.image.]
    @vit
    @transformer
    @pixels_16
    stack.layer_scale     <-> layer_scale_init_value ? 0.1
    stack.drop_path_rate  <-> drop_path_rate ? 0.1
    stack.key_bias=False
    stack.relative_positions=layer if layer
    stack.relative_positions=shared if shared !layer
    stack.final_norm=False if mean else True
    positions=learned if places else none
    hidden=replace if mask else drop
    pool_norm=True if mean else False
    pool=mean if mean|codes else cls
    registers=1 if mean|codes
    <-> use_mask_token=True if mask else False
    <-> use_absolute_position_embeddings=True if places else False
    <-> use_relative_position_bias=True if layer else False
    <-> use_shared_relative_position_bias=True if shared !layer else False
    <-> use_mean_pooling=True if mean|codes else False
    [objectives.features. if codes]
    head=vtp
    outputs               <-> vocab_size
  """),
  rules=rules(r"""
    [encoders_image/ <-> {p}embeddings.]
    {registers,stem/positions/table} <-> \
      {cls_token,position_embeddings} : class if places mean|codes
    {cls,stem/positions/table} <-> \
      {cls_token,position_embeddings} : class if places !mean !codes
    registers             <-> cls_token if !places mean|codes
    cls                   <-> cls_token if !places !mean !codes
    stem/patches          <-> patch_embeddings.projection : conv
    stem/mask_token       <-> mask_token : lead(2) if mask
    [encoders_image/stack/layer_{i}/ <-> {p}encoder.layer.{i}.]
    @vit_block_but_qkv
    attention/{query,value} <-> attention.attention.{query,value} : linear
    attention/key/kernel  <-> attention.attention.key.weight : matrix
    relative/table <-> attention.attention.relative_position_bias.\
      relative_position_bias_table if layer
    {attention,mlp}_scale <-> lambda_{1,2} if scale
    []
    heads_label/logits    <-> classifier : linear if label
    heads_vtp/logits      <-> lm_head : linear if codes
    [encoders_image/ <-> {p}]
    stack/norm            <-> layernorm : norm if !mean !codes
    stack/norm            <-> /layernorm : norm if codes
    pooling/norm_after    <-> pooler.layernorm : norm if mean
    stack/relative/table  <-> encoder.relative_position_bias.\
      relative_position_bias_table if shared !layer
    - {p}.*\.relative_position_index : which distances tokens have
  """),
  signs={
    "places": (
      "{p}embeddings.position_embeddings",
      "encoders_image/stem/positions/table",
    )
  },
  prefix="beit.",
  architectures={
    "": "BeitModel",
    "label": "BeitForImageClassification",
    "codes": "BeitForMaskedImageModeling",
  },
  complete=pixels.complete,
  files=pixels.file("BeitImageProcessor"),
)
