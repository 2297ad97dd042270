"""GPT-2 (Radford et al. 2019): our text decoder without a context."""

from mmjax.convert import lines
from mmjax.convert.family import Family
from mmjax.convert.mapping import Copy, Ignored, rule
from mmjax.convert.transforms import Absent, Flat, Matrix, Merged, Rows

TEXT, OURS = "model.decoders.text", "decoders_text"
BLOCK, LAYER = f"{OURS}/stack/layer_{{i:02d}}", "{p}h.{i}"
EPSILON = dict(default=1e-5)


def _conv(ours, theirs, num_in=1):
  """Its projections are saved the other way round, (in, out)."""
  how = Matrix(num_in, transposed=False)
  return [
    rule(f"{ours}/kernel", f"{theirs}.weight", how),
    rule(f"{ours}/bias", f"{theirs}.bias"),
  ]


def _complete(source, has):
  """`n_inner: null` is four times the width."""
  width = source.config.get("n_embd", 768)
  return {"n_inner": source.config.get("n_inner") or 4 * width}


FAMILY = Family(
  name="gpt2",
  keys=(
    lines.ours(f"{TEXT}.name", "text"),
    lines.ours(f"{TEXT}.positions", "learned"),
    *lines.stack(f"{TEXT}.stack", "pre"),
    *lines.size(
      TEXT,
      embed_dim="n_embd",
      num_layers="n_layer",
      num_heads="n_head",
      mlp_dim="n_inner",
    ),
    lines.key(f"{TEXT}.max_tokens", "n_positions", default=1024),
    lines.key("model.vocab_size", "vocab_size"),
    lines.activation(
      f"{TEXT}.stack.activation", "activation_function", "gelu_new"
    ),
    lines.key(f"{TEXT}.stack.norm_epsilon", "layer_norm_epsilon", **EPSILON),
    lines.key(f"{TEXT}.stack.dropout_rate", "resid_pdrop", default=0.1),
    lines.ours("objectives.lm.name", "causal_lm"),
    lines.ours("objectives.lm.tied", True),
    lines.key("data.text.max_tokens", "n_positions"),
    lines.theirs("scale_attn_weights", True),
    lines.theirs("scale_attn_by_inverse_layer_idx", False),
    lines.theirs("add_cross_attention", False),
    lines.theirs("tie_word_embeddings", True),
    lines.theirs("attn_pdrop", 0.0, checked=False),
    lines.theirs("embd_pdrop", 0.0, checked=False),
  ),
  rules=(
    rule(
      f"{OURS}/tokens/table",
      "{p}wte.weight",
      lambda c: Rows(used=c["vocab_size"]),
    ),
    rule(f"{OURS}/positions/table", "{p}wpe.weight"),
    lines.norm(f"{BLOCK}/attention_norm", f"{LAYER}.ln_1"),
    lines.merged(
      f"{BLOCK}/attention",
      f"{LAYER}.attn.c_attn.weight",
      f"{LAYER}.attn.c_attn.bias",
      Merged(1, Matrix(transposed=False)),
      Merged(0, Flat()),
    ),
    _conv(f"{BLOCK}/attention/out", f"{LAYER}.attn.c_proj", num_in=2),
    lines.norm(f"{BLOCK}/mlp_norm", f"{LAYER}.ln_2"),
    _conv(f"{BLOCK}/mlp/hidden", f"{LAYER}.mlp.c_fc"),
    _conv(f"{BLOCK}/mlp/out", f"{LAYER}.mlp.c_proj"),
    lines.norm(f"{OURS}/stack/norm", "{p}ln_f"),
    rule("heads_lm/bias", (), lambda c: Absent(c["vocab_size"], lines.NEVER)),
    Copy("lm_head.weight", "{p}wte.weight"),
    Ignored(r"{p}h\.\d+\.attn\.(masked_)?bias", "which tokens are later"),
  ),
  parts={"lm": ("{p}wte.weight", "heads_lm/bias")},
  num_layers="n_layer",
  heads=("lm",),
  prefix="transformer.",
  complete=_complete,
  architectures={"lm": "GPT2LMHeadModel"},
)
