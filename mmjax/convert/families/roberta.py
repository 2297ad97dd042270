"""RoBERTa (Liu et al. 2019): BERT without a pooler, positions from 2 on."""

from mmjax.convert.beside import texts
from mmjax.convert.family import Family
from mmjax.convert.tables import keys, rules

FAMILY = Family(
  name="roberta",
  keys=keys(
    """
    [model.encoders.text.]
    @bert
    max_tokens            <-> max_position_embeddings ? 514 : $but_2
    /data.text.max_tokens <-> max_seq_length ? $max_tokens
    <-> pad_token_id=1
    [objectives.mlm. if mlm]
    @bert_mlm
    """,
    but_2=(lambda rows: rows - 2, lambda tokens: tokens + 2),
    max_tokens=lambda config: config["max_position_embeddings"] - 2,
  ),
  rules=rules(r"""
    [encoders_text/stem/ <-> {p}embeddings.]
    segments/table      <-> token_type_embeddings.weight
    norm                <-> LayerNorm : norm
    tokens/table        <-> word_embeddings.weight : rows(vocab_size)
    positions/table     <-> position_embeddings.weight : skip(2)
    [encoders_text/stack/layer_{i}/ <-> {p}encoder.layer.{i}.]
    @bert_block
    []
    heads_label/logits  <-> classifier.out_proj : linear if label
    [encoders_text/pooling/]
    projection          <-> {p}pooler.dense : linear if pooler !label
    projection          <-> classifier.dense : linear if label
    [heads_mlm/ <-> lm_head. if mlm]
    hidden              <-> dense : linear
    norm                <-> layer_norm : norm
    bias                <-> bias : logits(vocab_size)
    = decoder.weight of /{p}embeddings.word_embeddings.weight
    = decoder.bias of bias
    []
    - {p}embeddings\.(position|token_type)_ids : 0, 1, 2, ...
    - {p}pooler\.dense\..* : it pools by the mean if mean
  """),
  prefix="roberta.",
  architectures={
    "": "RobertaModel",
    "label": "RobertaForSequenceClassification",
    "mlm": "RobertaForMaskedLM",
  },
  complete=texts.complete_bert,
  told=("mean",),
)
