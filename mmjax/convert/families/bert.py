"""BERT (Devlin et al. 2019), RoBERTa (Liu et al. 2019), MiniLM and the like."""

from mmjax.convert import lines
from mmjax.convert.family import Family
from mmjax.convert.mapping import Copy, Ignored

TEXT, STEM = "model.encoders.text", "encoders_text/stem"
BLOCK, LAYER = "encoders_text/stack/layer_{i:02d}", "{p}encoder.layer.{i}"
TANH, LOGITS = "encoders_text/pooling/projection", "heads_label/logits"
TABLE = "{p}embeddings.word_embeddings.weight"
NAMES = dict(
  query="attention.self.query",
  key="attention.self.key",
  value="attention.self.value",
  out="attention.output.dense",
  attention_norm="attention.output.LayerNorm",
  hidden="intermediate.dense",
  mlp_out="output.dense",
  mlp_norm="output.LayerNorm",
)


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
    *lines.text(TEXT, skip=skip),
    *lines.transformer(TEXT, dropout=0.1),
    *lines.stack(f"{TEXT}.stack", "post"),
    lines.key(f"{TEXT}.embedding_dropout_rate", "hidden_dropout_prob"),
    *lines.fixed(TEXT, "pooler|label", pool="first", pool_tanh=True),
    *lines.features("text"),
    *lines.token_head("mlm", "mlm", name="masked_lm", given=(), tied=True),
    lines.ours("data.text.mask.rate", 0.15, when="mlm"),
    lines.key(
      "data.text.max_tokens",
      "max_seq_length",
      default=lambda config: config["max_position_embeddings"] - skip,
    ),
    lines.theirs("position_embedding_type", "absolute"),
    lines.theirs("is_decoder", False),
    lines.theirs("add_cross_attention", False),
    # Of RoBERTa, positions begin after its id.
    lines.theirs("pad_token_id", 1 if skip else 0, checked=bool(skip)),
  )


def _family(name, title, skip, head, dense, norm, label, rules):
  """`dense`, `norm` and `head` predict hidden tokens, `label` a class."""
  return Family(
    name=name,
    keys=_keys(skip),
    rules=(
      lines.text_tables(STEM, "{p}embeddings", skip=skip),
      lines.block(BLOCK, LAYER, **NAMES),
      ("mlm", lines.linear("heads_mlm/hidden", dense)),
      ("mlm", lines.norm("heads_mlm/norm", norm)),
      ("mlm", lines.word_bias("heads_mlm/bias", f"{head}.bias")),
      ("mlm", Copy(f"{head}.decoder.weight", TABLE)),
      ("mlm", Copy(f"{head}.decoder.bias", f"{head}.bias")),
      ("label", lines.linear(LOGITS, label)),
      Ignored(r"{p}embeddings\.(position|token_type)_ids", "0, 1, 2, ..."),
      ("mean", Ignored(r"{p}pooler\.dense\..*", "it pools by the mean")),
      *rules,
    ),
    parts={
      "pooler": ("{p}pooler.dense.weight", f"{TANH}/kernel"),
      "mlm": (f"{dense}.weight", "heads_mlm/hidden/kernel"),
      "label": (f"{label}.weight", f"{LOGITS}/kernel"),
    },
    num_layers="num_hidden_layers",
    heads=("label", "mlm"),
    prefix=f"{name}.",
    architectures={
      "": f"{title}Model",
      "label": f"{title}ForSequenceClassification",
      "mlm": f"{title}ForMaskedLM",
    },
    complete=_complete,
  )


BERT = _family(
  "bert",
  "Bert",
  skip=0,
  head="cls.predictions",
  dense="cls.predictions.transform.dense",
  norm="cls.predictions.transform.LayerNorm",
  label="classifier",
  rules=(
    ("pooler", lines.linear(TANH, "{p}pooler.dense")),
    Ignored(r"cls\.seq_relationship\..*", "next sentence: no such head"),
  ),
)
ROBERTA = _family(
  "roberta",
  "Roberta",
  skip=2,
  head="lm_head",
  dense="lm_head.dense",
  norm="lm_head.layer_norm",
  label="classifier.out_proj",
  rules=(
    ("pooler !label", lines.linear(TANH, "{p}pooler.dense")),
    ("label", lines.linear(TANH, "classifier.dense")),
  ),
)
