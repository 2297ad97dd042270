"""BERT (Devlin et al. 2019), MiniLM and the like."""

from mmjax.convert.beside import texts
from mmjax.convert.family import Family
from mmjax.convert.tables import keys, rules

FAMILY = Family(
  name="bert",
  keys=keys(
    """
    [model.encoders.text.]
    @bert
    max_tokens            <-> max_position_embeddings ? 512
    /data.text.max_tokens <-> max_seq_length ? $max_tokens
    <-> pad_token_id~0
    [objectives.mlm. if mlm]
    @bert_mlm
    """,
    max_tokens=lambda config: config["max_position_embeddings"],
  ),
  rules=rules(r"""
    [encoders_text/stem/ <-> {p}embeddings.]
    @bert_embeddings
    tokens/table        <-> word_embeddings.weight : rows(vocab_size)
    [encoders_text/stack/layer_{i}/ <-> {p}encoder.layer.{i}.]
    @bert_block
    []
    encoders_text/pooling/projection <-> {p}pooler.dense : linear if pooler
    heads_label/logits  <-> classifier : linear if label
    [heads_mlm/ <-> cls.predictions. if mlm]
    @token_head
    bias                <-> bias : logits(vocab_size)
    = decoder.weight of /{p}embeddings.word_embeddings.weight
    = decoder.bias of bias
    []
    - {p}embeddings\.(position|token_type)_ids : 0, 1, 2, ...
    - {p}pooler\.dense\..* : it pools by the mean if mean
    - cls\.seq_relationship\..* : next sentence: no such head
  """),
  prefix="bert.",
  architectures={
    "": "BertModel",
    "label": "BertForSequenceClassification",
    "mlm": "BertForMaskedLM",
  },
  complete=texts.complete_bert,
  told=("mean",),
)
