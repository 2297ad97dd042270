"""ViT as big_vision and AugReg (Steiner et al. 2021) save it, npz of Flax."""

from mmjax.convert.beside import shapes
from mmjax.convert.family import Family
from mmjax.convert.tables import keys, rules

FAMILY = Family(
  name="big_vision_vit",
  keys=keys("""
    [model.encoders.image.]
    @vit
    @size
    @pixels
    {image,patch}_size          <-> {image,patch}_size
    pool=cls hidden=drop positions=learned
    pool_tanh=True if pooler
    # As Flax had it by default: the approximation.
    stack.activation=gelu_tanh stack.norm_epsilon=1e-6
  """),
  rules=rules(r"""
    [encoders_image/stack/layer_{i}/ <-> {p}Transformer/encoderblock_{i}/]
    {attention,mlp}_norm        <-> LayerNorm_{0,2} : flax_norm
    mlp/{hidden,out}            <-> MlpBlock_3/Dense_{0,1} : flax
    attention/{query,key,value,out} <-> \
      MultiHeadDotProductAttention_1/{query,key,value,out} : flax
    [encoders_image/ <-> {p}]
    {cls,stem/positions/table}  <-> \
      {cls,Transformer/posembed_input/pos_embedding} : class
    stem/patches                <-> embedding : flax_conv
    stack/norm                  <-> Transformer/encoder_norm : flax_norm
    pooling/projection          <-> pre_logits : flax if pooler
    /heads_label/logits         <-> head : flax if label
    - (opt|chrono)/.*           : of its optimizer
  """),
  prefix="params/",
  recognizes=lambda source: bool(shapes.shape(source, shapes.QUERY)),
  complete=shapes.complete_big_vision,
  writes=False,
)
