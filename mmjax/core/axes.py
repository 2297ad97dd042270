"""Logical names of array axes: the only words models and sharding share.

A model names the axes of its parameters and activations with these words;
`mmjax.sharding.rules` maps the words to mesh axes. Activations have names of
their own (`ACT_*`), because a weight and an activation of the same width are
usually placed differently (FSDP shards the weight's `EMBED` axis only).
"""

# Parameters.
LAYERS = "layers"  # Stacked layers of a scanned `Stack`.
EMBED = "embed"  # Width of the residual stream.
MLP = "mlp"  # Hidden width of a feed-forward block.
EXPERT_MLP = "expert_mlp"  # The same, of one that one modality alone uses.
HEADS = "heads"  # Attention heads.
HEAD_DIM = "head_dim"  # Channels of one head.
VOCAB = "vocab"  # Entries of a token table or of a classification head.
CODEBOOK = "codebook"  # Entries of a visual codebook.
CODE_DIM = "code_dim"  # Channels of one code.
PATCH = "patch"  # Flattened pixels of one patch.
POSITION = "position"  # Rows of a learned position table.
SHARED = "shared"  # Channels of the modality-invariant space.
LORA_RANK = "lora_rank"  # Between the two matrices of an adapter.

# Activations.
ACT_BATCH = "act_batch"
ACT_SEQ = "act_seq"
ACT_EMBED = "act_embed"
ACT_HEADS = "act_heads"
ACT_MLP = "act_mlp"
ACT_VOCAB = "act_vocab"

PARAMETER_AXES = frozenset(
  {
    LAYERS,
    EMBED,
    MLP,
    EXPERT_MLP,
    HEADS,
    HEAD_DIM,
    VOCAB,
    CODEBOOK,
    CODE_DIM,
    PATCH,
    POSITION,
    SHARED,
    LORA_RANK,
  }
)
ACTIVATION_AXES = frozenset(
  {ACT_BATCH, ACT_SEQ, ACT_EMBED, ACT_HEADS, ACT_MLP, ACT_VOCAB}
)
ALL_AXES = PARAMETER_AXES | ACTIVATION_AXES
