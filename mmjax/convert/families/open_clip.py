"""CLIP as open_clip (Ilharco et al. 2021, doi:10.5281/zenodo.5143773) saves it.

Those whose towers are its own transformers: pictures in patches, a class token.
"""

from mmjax.convert.beside import open_clip
from mmjax.convert.families import clip
from mmjax.convert.family import TOWERS, Family
from mmjax.convert.tables import rules

BLOCK = """
  {attention,mlp}_norm          <-> ln_{1,2} : norm
  attention/{query,key,value}   <-> attn.in_proj : in_proj
  attention/out                 <-> attn.out_proj : linear(2)
  mlp/{hidden,out}              <-> mlp.c_{fc,proj} : linear
"""
FAMILY = Family(
  name="open_clip",
  keys=clip.KEYS,
  rules=rules(rf"""
    [encoders_text/stack/layer_{{i}}/ <-> transformer.resblocks.{{i}}.]
    {BLOCK}
    [encoders_image/stack/layer_{{i}}/ <-> visual.transformer.resblocks.{{i}}.]
    {BLOCK}
    [encoders_text/]
    stem/tokens/table           <-> \
      token_embedding.weight : rows(text_config.vocab_size)
    stem/positions/table        <-> positional_embedding
    stack/norm                  <-> ln_final : norm
    [encoders_image/ <-> visual.]
    {{cls,stem/positions/table}} <-> {{class,positional}}_embedding : class_flat
    stem/patches/kernel         <-> conv1.weight : patches
    first_norm                  <-> ln_pre : norm
    stack/norm                  <-> ln_post : norm
    [shared_space/]
    projections_image/kernel    <-> visual.proj
    projections_text/kernel     <-> text_projection
    log_scale                   <-> logit_scale
    - attn_mask : which tokens are later
  """),
  num_layers=TOWERS,
  recognizes=lambda source: "visual.class_embedding" in source.specs,
  complete=open_clip.complete,
  writes=False,
)
