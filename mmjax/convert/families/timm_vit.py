"""ViT as timm has it: one kernel for queries, keys and values."""

from mmjax.convert.beside import shapes
from mmjax.convert.family import Family
from mmjax.convert.tables import keys, rules

FIRST = "blocks.0.mlp.fc1.weight"
FAMILY = Family(
  name="timm_vit",
  keys=keys("""
    [model.encoders.image.]
    @vit
    @size
    @pixels
    {image,patch}_size          <-> {image,patch}_size
    pool=cls hidden=drop positions=learned
    stack.activation=gelu stack.norm_epsilon=1e-6
  """),
  rules=rules("""
    [encoders_image/stack/layer_{i}/ <-> blocks.{i}.]
    {attention,mlp}_norm        <-> norm{1,2} : norm
    attention/{query,key,value} <-> attn.qkv : merged
    attention/out               <-> attn.proj : linear(2)
    mlp/{hidden,out}            <-> mlp.fc{1,2} : linear
    [encoders_image/]
    {cls,stem/positions/table}  <-> {cls_token,pos_embed} : class
    stem/patches                <-> patch_embed.proj : conv
    stack/norm                  <-> norm : norm
    /heads_label/logits         <-> head : linear if label
  """),
  recognizes=lambda s: FIRST in s.specs and "cls_token" in s.specs,
  complete=shapes.complete_timm,
  writes=False,
)
