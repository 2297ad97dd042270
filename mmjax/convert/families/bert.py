"""BERT (Devlin et al. 2019), RoBERTa (Liu et al. 2019), MiniLM and the like."""

from mmjax.convert import lines
from mmjax.convert.family import Family
from mmjax.convert.mapping import Copy, Ignored, rule
from mmjax.convert.transforms import Rows

TEXT, STEM = "model.encoders.text", "encoders_text/stem"
BLOCK, LAYER = "encoders_text/stack/layer_{i:02d}", "{p}encoder.layer.{i}"
TANH, LOGITS = "encoders_text/pooling/projection", "heads_label/logits"
TABLE = "{p}embeddings.word_embeddings.weight"
NSP = Ignored(r"cls\.seq_relationship\..*", "next sentence: no such head")
DROP, EPSILON = dict(default=0.1), dict(default=1e-12)


def _complete(source, has):
  """What sentence-transformers writes beside: how to pool, how many tokens."""
  pooling = source.beside.get("1_Pooling/config.json", {})
  if pooling.get("pooling_mode_mean_tokens"):
    has.discard("pooler")
    has.add("mean")
  limits = source.beside.get("sentence_bert_config.json", {})
  limit = limits.get("max_seq_length")
  return {"max_seq_length": limit} if limit else {}


def _keys(skip):
  """`skip`: rows of positions before the first, which nobody reads."""
  return (
    lines.ours(f"{TEXT}.name", "text"),
    *lines.size(TEXT),
    lines.ours(f"{TEXT}.causal", False),
    lines.ours(f"{TEXT}.attend_padding", False),
    lines.ours(f"{TEXT}.positions", "learned"),
    lines.key(
      f"{TEXT}.max_tokens",
      "max_position_embeddings",
      default=512 + skip,
      into=lambda rows: rows - skip,
      back=lambda tokens: tokens + skip,
    ),
    lines.key("model.vocab_size", "vocab_size"),
    lines.key(f"{TEXT}.num_segments", "type_vocab_size", default=2),
    lines.key(f"{TEXT}.embedding_norm_epsilon", "layer_norm_eps", **EPSILON),
    lines.key(f"{TEXT}.embedding_dropout_rate", "hidden_dropout_prob", **DROP),
    *lines.stack(f"{TEXT}.stack", "post"),
    lines.activation(f"{TEXT}.stack.activation", "hidden_act", "gelu"),
    lines.key(f"{TEXT}.stack.norm_epsilon", "layer_norm_eps", **EPSILON),
    lines.key(f"{TEXT}.stack.dropout_rate", "hidden_dropout_prob", **DROP),
    lines.ours(f"{TEXT}.pool", "first", when="pooler|label"),
    lines.ours(f"{TEXT}.pool_tanh", True, when="pooler|label"),
    *lines.features("text"),
    lines.ours("objectives.mlm.name", "masked_lm", when="mlm"),
    lines.ours("objectives.mlm.given", (), when="mlm"),
    lines.ours("objectives.mlm.tied", True, when="mlm"),
    lines.activation(
      "objectives.mlm.head_activation", "hidden_act", "gelu", "mlm"
    ),
    lines.key("objectives.mlm.head_norm_epsilon", "layer_norm_eps", when="mlm"),
    lines.ours("data.text.mask.rate", 0.15, when="mlm"),
    lines.key(
      "data.text.max_tokens",
      "max_seq_length",
      default=lambda config: config["max_position_embeddings"] - skip,
    ),
    lines.theirs("position_embedding_type", "absolute"),
    lines.theirs("is_decoder", False),
    lines.theirs("add_cross_attention", False),
    lines.theirs("attention_probs_dropout_prob", 0.0, checked=False),
    # Of RoBERTa, positions begin after its id.
    lines.theirs("pad_token_id", 1 if skip else 0, checked=bool(skip)),
  )


def _rules(skip, dense, layer_norm, head):
  """The rules; the last three are names of what predicts hidden tokens."""
  words = lambda c: Rows(used=c["vocab_size"])  # noqa: E731
  bias = lambda c: Rows(used=c["vocab_size"], fill=lines.NEVER)  # noqa: E731
  return (
    rule(f"{STEM}/tokens/table", TABLE, words),
    rule(
      f"{STEM}/positions/table",
      "{p}embeddings.position_embeddings.weight",
      Rows(skip=skip),
    ),
    rule(
      f"{STEM}/segments/table", "{p}embeddings.token_type_embeddings.weight"
    ),
    lines.norm(f"{STEM}/norm", "{p}embeddings.LayerNorm"),
    lines.block(
      BLOCK,
      LAYER,
      query="attention.self.query",
      key="attention.self.key",
      value="attention.self.value",
      out="attention.output.dense",
      attention_norm="attention.output.LayerNorm",
      hidden="intermediate.dense",
      mlp_out="output.dense",
      mlp_norm="output.LayerNorm",
    ),
    ("mlm", lines.linear("heads_mlm/hidden", dense)),
    ("mlm", lines.norm("heads_mlm/norm", layer_norm)),
    ("mlm", rule("heads_mlm/bias", f"{head}.bias", bias)),
    ("mlm", Copy(f"{head}.decoder.weight", TABLE)),
    ("mlm", Copy(f"{head}.decoder.bias", f"{head}.bias")),
    Ignored(r"{p}embeddings\.(position|token_type)_ids", "0, 1, 2, ..."),
    ("mean", Ignored(r"{p}pooler\.dense\..*", "it pools by the mean")),
  )


def _parts(mlm, label):
  return {
    "pooler": ("{p}pooler.dense.weight", f"{TANH}/kernel"),
    "mlm": (f"{mlm}.weight", "heads_mlm/hidden/kernel"),
    "label": (f"{label}.weight", f"{LOGITS}/kernel"),
  }


_TRANSFORM, _HEAD = "cls.predictions.transform", "cls.predictions"
BERT = Family(
  name="bert",
  keys=_keys(0),
  rules=(
    *_rules(0, f"{_TRANSFORM}.dense", f"{_TRANSFORM}.LayerNorm", _HEAD),
    ("pooler", lines.linear(TANH, "{p}pooler.dense")),
    ("label", lines.linear(LOGITS, "classifier")),
    NSP,
  ),
  parts=_parts(f"{_TRANSFORM}.dense", "classifier"),
  num_layers="num_hidden_layers",
  heads=("label", "mlm"),
  prefix="bert.",
  architectures={
    "": "BertModel",
    "label": "BertForSequenceClassification",
    "mlm": "BertForMaskedLM",
  },
  complete=_complete,
)
ROBERTA = Family(
  name="roberta",
  keys=_keys(2),
  rules=(
    *_rules(2, "lm_head.dense", "lm_head.layer_norm", "lm_head"),
    ("pooler !label", lines.linear(TANH, "{p}pooler.dense")),
    ("label", lines.linear(TANH, "classifier.dense")),
    ("label", lines.linear(LOGITS, "classifier.out_proj")),
  ),
  parts=_parts("lm_head.dense", "classifier.out_proj"),
  num_layers="num_hidden_layers",
  heads=("label", "mlm"),
  prefix="roberta.",
  architectures={
    "": "RobertaModel",
    "label": "RobertaForSequenceClassification",
    "mlm": "RobertaForMaskedLM",
  },
  complete=_complete,
)
