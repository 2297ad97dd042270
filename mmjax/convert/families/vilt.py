"""ViLT (Kim et al. 2021, arXiv:2102.03334): one stack over text and patches.

Our encoders of text and pictures are its embeddings, without layers; the
fusion is its stack. Patches come in their order, by theirs in a random one,
which no other token sees.
"""

from mmjax.convert.beside import pixels
from mmjax.convert.family import Family
from mmjax.convert.tables import keys, rules

FAMILY = Family(
  name="vilt",
  keys=keys("""
    [model.encoders.{text,image}.]
    @no_layers
    [model.encoders.text.]
    @caption
    max_tokens              <-> max_position_embeddings ? 40
    pool=first pool_tanh=True
    [model.encoders.image.]
    @pixels
    image_size              <-> image_size ? 384
    patch_size              <-> patch_size ? 32
    name=vit pool=cls hidden=drop positions=learned
    [model.fusion.]
    @transformer
    @pre
    name=joint
    <-> num_channels=3 qkv_bias=True modality_type_vocab_size=2
    # Of larger pictures.
    <-> max_image_length~-1
    [objectives.features.]
    name=features modality=text given=("image",)
    head_kind=mlp if label
    [objectives.mlm. if mlm]
    @token_head
    name=masked_lm given=("image",) tied=True
    /data.text.mask.rate=0.15
  """),
  rules=rules(r"""
    [encoders_text/stem/ <-> {p}embeddings.text_embeddings.]
    @bert_embeddings
    tokens/table            <-> word_embeddings.weight : rows(vocab_size)
    = /mlm_score.decoder.weight of word_embeddings.weight if mlm
    - {p}embeddings\.text_embeddings\.position_ids : 0, 1, 2, ...
    [encoders_image/ <-> {p}embeddings.]
    @vit_embeddings
    /fusion/modality_{text,image} <-> token_type_embeddings.weight : stacked
    [fusion/stack/layer_{i}/ <-> {p}encoder.layer.{i}.]
    @vit_block
    [ <-> {p}]
    fusion/stack/norm       <-> layernorm : norm
    encoders_text/pooling/projection <-> pooler.dense : linear
    [heads_label/ <-> classifier. if label]
    {logits,hidden}         <-> {3,0} : linear
    norm                    <-> 1 : norm
    [heads_mlm/ <-> mlm_score. if mlm]
    @token_head
    bias                    <-> decoder.bias : logits(vocab_size)
    = bias of decoder.bias
    []
    ! classifier\.weight|rank_output\.weight : heads that classify tokens or \
      rank pairs don't exist here; convert the backbone (ViltModel)
  """),
  prefix="vilt.",
  architectures={
    "": "ViltModel",
    "label": "ViltForQuestionAnswering",
    "mlm": "ViltForMaskedLM",
  },
  complete=pixels.complete,
  files=pixels.file("ViltImageProcessor", keeps_shape=True),
)
