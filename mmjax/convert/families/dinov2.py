"""DINOv2 (Oquab et al. 2024)."""

from mmjax.convert.beside import pixels, widths
from mmjax.convert.family import Family
from mmjax.convert.tables import keys, rules

KEYS = """
  [model.encoders.image.]
  @vit
  @size_but_mlp
  @pixels
  size.mlp_dim          <-> intermediate_size ? $mlp_dim
  image_size            <-> image_size ? 224
  patch_size            <-> patch_size ? $patch_size
  positions=learned
  pool=cls_mean if label else cls
  hidden=replace if mask else drop
  stack.gated           <-> use_swiglu_ffn ? False
  stack.activation      <-> hidden_act ? gelu : activation if !gated
  stack.activation=silu if gated
  stack.norm_epsilon    <-> layer_norm_eps ? 1e-6
  stack.layer_scale     <-> layerscale_value ? 1.0
  <-> qkv_bias=True hidden_dropout_prob~0.0
  <-> attention_probs_dropout_prob~0.0 drop_path_rate~0.0
"""
RULES = """
  [encoders_image/ <-> {p}embeddings.]
  @vit_embeddings
  stem/mask_token       <-> mask_token : lead(1) if mask
  [encoders_image/stack/layer_{i}/ <-> {p}encoder.layer.{i}.]
  {attention,mlp}_norm  <-> norm{1,2} : norm
  {attention,mlp}_scale <-> layer_scale{1,2}.lambda1
  attention/{query,key,value} <-> attention.attention.{query,key,value} : linear
  attention/out         <-> attention.output.dense : linear(2)
  mlp/{hidden,out}      <-> mlp.fc{1,2} : linear if !gated
  mlp/{gate,hidden}     <-> mlp.weights_in : merged if gated
  mlp/out               <-> mlp.weights_out : linear if gated
  []
  encoders_image/stack/norm <-> {p}layernorm : norm
  heads_label/logits    <-> classifier : linear if label
"""
MORE = """
  registers=0
  <-> use_mask_token~False if !mask
"""
FAMILY = Family(
  name="dinov2",
  keys=keys(KEYS + MORE, mlp_dim=widths.of_dinov2, patch_size=14),
  rules=rules(RULES),
  prefix="dinov2.",
  architectures={"": "Dinov2Model", "label": "Dinov2ForImageClassification"},
  complete=pixels.complete_imagenet,
  derive=widths.derive_dinov2,
  files=pixels.file("ViTImageProcessor"),
)
