"""GPT-2 (Radford et al. 2019): our text decoder without a context."""

from mmjax.convert import family as f
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


FAMILY = f.Family(
  name="gpt2",
  keys=(
    f.ours(f"{TEXT}.name", "text"),
    f.ours(f"{TEXT}.positions", "learned"),
    *f.stack(f"{TEXT}.stack", "pre"),
    f.key(f"{TEXT}.size.embed_dim", "n_embd"),
    f.key(f"{TEXT}.size.num_layers", "n_layer"),
    f.key(f"{TEXT}.size.num_heads", "n_head"),
    f.key(f"{TEXT}.size.mlp_dim", "n_inner", default=lambda c: 4 * c["n_embd"]),
    f.key(f"{TEXT}.max_tokens", "n_positions", default=1024),
    f.key("model.vocab_size", "vocab_size"),
    f.activation(f"{TEXT}.stack.activation", "activation_function", "gelu_new"),
    f.key(f"{TEXT}.stack.norm_epsilon", "layer_norm_epsilon", **EPSILON),
    f.key(f"{TEXT}.stack.dropout_rate", "resid_pdrop", default=0.1),
    f.ours("objectives.lm.name", "causal_lm"),
    f.ours("objectives.lm.tied", True),
    f.key("data.text.max_tokens", "n_positions"),
    f.theirs("scale_attn_weights", True),
    f.theirs("scale_attn_by_inverse_layer_idx", False),
    f.theirs("add_cross_attention", False),
    f.theirs("tie_word_embeddings", True),
    f.theirs("attn_pdrop", 0.0, checked=False),
    f.theirs("embd_pdrop", 0.0, checked=False),
  ),
  rules=(
    rule(
      f"{OURS}/tokens/table",
      "{p}wte.weight",
      lambda c: Rows(used=c["vocab_size"]),
    ),
    rule(f"{OURS}/positions/table", "{p}wpe.weight"),
    f.norm(f"{BLOCK}/attention_norm", f"{LAYER}.ln_1"),
    f.merged(
      f"{BLOCK}/attention",
      f"{LAYER}.attn.c_attn.weight",
      f"{LAYER}.attn.c_attn.bias",
      Merged(1, Matrix(transposed=False)),
      Merged(0, Flat()),
    ),
    _conv(f"{BLOCK}/attention/out", f"{LAYER}.attn.c_proj", num_in=2),
    f.norm(f"{BLOCK}/mlp_norm", f"{LAYER}.ln_2"),
    _conv(f"{BLOCK}/mlp/hidden", f"{LAYER}.mlp.c_fc"),
    _conv(f"{BLOCK}/mlp/out", f"{LAYER}.mlp.c_proj"),
    f.norm(f"{OURS}/stack/norm", "{p}ln_f"),
    rule("heads_lm/bias", (), lambda c: Absent(c["vocab_size"], f.NEVER)),
    Copy("lm_head.weight", "{p}wte.weight"),
    Ignored(r"{p}h\.\d+\.attn\.(masked_)?bias", "which tokens are later"),
  ),
  parts={"lm": ("{p}wte.weight", "heads_lm/bias")},
  num_layers="n_layer",
  heads=("lm",),
  prefix="transformer.",
  architectures={"lm": "GPT2LMHeadModel"},
)
