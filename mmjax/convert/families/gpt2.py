"""GPT-2 (Radford et al. 2019): our text decoder without a context."""

from mmjax.convert.beside import widths
from mmjax.convert.family import Family
from mmjax.convert.tables import keys, rules

KEYS = keys("""
  [model.decoders.text.]
  name=text positions=learned
  size.{embed_dim,num_layers,num_heads,mlp_dim} <-> n_{embd,layer,head,inner}
  max_tokens             <-> n_positions ? 1024
  stack.activation       <-> activation_function ? gelu_new : activation
  stack.norm_epsilon     <-> layer_norm_epsilon ? 1e-5
  stack.dropout_rate     <-> resid_pdrop ? 0.1
  stack.norm=layer_norm stack.norm_position=pre stack.scan=False
  []
  model.vocab_size       <-> vocab_size
  data.text.max_tokens   <-> n_positions
  objectives.lm.name=causal_lm objectives.lm.tied=True
  <-> scale_attn_weights=True scale_attn_by_inverse_layer_idx=False
  <-> add_cross_attention=False tie_word_embeddings=True
  <-> attn_pdrop~0.0 embd_pdrop~0.0
""")
RULES = rules(r"""
  [decoders_text/ <-> {p}]
  tokens/table                  <-> wte.weight : rows(vocab_size)
  positions/table               <-> wpe.weight
  stack/norm                    <-> ln_f : norm
  [decoders_text/stack/layer_{i}/ <-> {p}h.{i}.]
  {attention,mlp}_norm          <-> ln_{1,2} : norm
  attention/{query,key,value}   <-> attn.c_attn : transposed_merged
  attention/out                 <-> attn.c_proj : transposed(2)
  mlp/{hidden,out}              <-> mlp.c_{fc,proj} : transposed
  []
  heads_lm/bias                 : absent(vocab_size)
  = lm_head.weight of {p}wte.weight
  - {p}h\.\d+\.attn\.(masked_)?bias : which tokens are later
""")
FAMILY = Family(
  name="gpt2",
  keys=KEYS,
  rules=RULES,
  signs={"lm": ("{p}wte.weight", "heads_lm/bias")},
  num_layers="n_layer",
  heads=("lm",),
  prefix="transformer.",
  complete=widths.complete_gpt2,
  architectures={"lm": "GPT2LMHeadModel"},
)
