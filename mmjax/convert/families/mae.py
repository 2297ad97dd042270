"""MAE (He et al. 2022): a ViT without its hidden patches, and its decoder."""

from mmjax.convert.beside import pixels
from mmjax.convert.family import Family
from mmjax.convert.tables import keys, rules

FAMILY = Family(
  name="vit_mae",
  keys=keys("""
    [model.encoders.image.]
    @vit
    @transformer
    @pixels_16
    pool=cls hidden=drop positions=learned
    <-> qkv_bias=True
    [model.decoders.image. if decoder]
    @stack
    @pre
    name=patches everywhere=True
    size.{embed_dim,num_layers} <-> decoder_{hidden_size,num_hidden_layers}
    size.num_heads              <-> decoder_num_attention_heads
    size.mlp_dim                <-> decoder_intermediate_size
    [objectives.mae. if decoder]
    name=masked_pixel_regression unbiased=True epsilon=1e-6
    normalize                   <-> norm_pix_loss ? False
    pixel_{mean,std}            <-> image_{mean,std} : tuple
    /data.image.mask.rate       <-> mask_ratio ? 0.75
    /data.image.mask.patch_size <-> patch_size
  """),
  rules=rules("""
    [encoders_image/ <-> {p}embeddings.]
    @vit_embeddings
    [encoders_image/stack/layer_{i}/ <-> {p}encoder.layer.{i}.]
    @vit_block
    []
    encoders_image/stack/norm     <-> {p}layernorm : norm
    [decoders_image/ <-> decoder.decoder_ if decoder]
    /heads_pixels/logits          <-> pred : linear
    input                         <-> embed : linear
    restore/mask_token            <-> /decoder.mask_token : lead(2)
    restore/positions/table       <-> pos_embed : no_class
    stack/norm                    <-> norm : norm
    [decoders_image/stack/layer_{i}/ <-> decoder.decoder_encoder.layer.{i}.]
    @vit_block if decoder
  """),
  num_layers={
    "encoders_image": "num_hidden_layers",
    "decoders_image": "decoder_num_hidden_layers",
  },
  prefix="vit.",
  architectures={"": "ViTMAEModel", "decoder": "ViTMAEForPreTraining"},
  complete=pixels.complete_imagenet,
  files=pixels.file("ViTImageProcessor"),
)
