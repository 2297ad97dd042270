"""Lines that the tables of many families have, by name: see `tables`."""

# Of configs.
KEYS = {
  # A transformer, by the keys of BERT's config.
  "size": """
    @size_but_mlp
    size.mlp_dim         <-> intermediate_size
  """,
  "size_but_mlp": """
    size.embed_dim       <-> hidden_size
    size.num_layers      <-> num_hidden_layers
    size.num_heads       <-> num_attention_heads
  """,
  # One that only embeds, without layers.
  "no_layers": """
    @pre
    size.num_layers=0 stack.final_norm=False
    size.embed_dim       <-> hidden_size
    size.num_heads       <-> num_attention_heads
    size.mlp_dim         <-> intermediate_size
  """,
  "transformer": """
    @size
    @stack
  """,
  "stack": """
    stack.activation     <-> hidden_act ? gelu : activation
    stack.norm_epsilon   <-> layer_norm_eps ? 1e-12
    stack.dropout_rate   <-> hidden_dropout_prob ? 0.0
    <-> attention_probs_dropout_prob~0.0
  """,
  # Where the norms of its blocks stand, which parameters don't show.
  "pre": "stack.norm=layer_norm stack.norm_position=pre stack.scan=False",
  # A text encoder whose tokens see each other, by the keys of BERT's config.
  "text": """
    name=text positions=learned causal=False attend_padding=False
    num_segments            <-> type_vocab_size ? 2
    embedding_norm_epsilon  <-> layer_norm_eps ? 1e-12
    /model.vocab_size       <-> vocab_size
  """,
  # The same, beside pictures: texts are as long as it has positions.
  "caption": """
    @text
    /data.text.max_tokens   <-> max_position_embeddings
  """,
  # BERT and RoBERTa, but for how many tokens a text has.
  "bert": """
    @text
    @size
    stack.norm=layer_norm stack.norm_position=post stack.scan=False
    stack.activation        <-> hidden_act ? gelu : activation
    stack.norm_epsilon      <-> layer_norm_eps ? 1e-12
    stack.dropout_rate      <-> hidden_dropout_prob ? 0.1
    embedding_dropout_rate  <-> hidden_dropout_prob
    <-> attention_probs_dropout_prob~0.0
    pool=first pool_tanh=True if pooler|label
    /objectives.features.name=features /objectives.features.modality=text
    <-> position_embedding_type=absolute is_decoder=False
    <-> add_cross_attention=False
  """,
  "bert_mlm": """
    @token_head
    name=masked_lm given=() tied=True
    /data.text.mask.rate=0.15
  """,
  # An objective that predicts tokens as BERT does.
  "token_head": """
    head_activation      <-> hidden_act ? gelu : activation
    head_norm_epsilon    <-> layer_norm_eps
  """,
  # A picture encoder; how it pools and what it knows of places is said apart.
  "vit": """
    @pre
    name=vit stem=patch
    /objectives.features.name=features /objectives.features.modality=image
    <-> num_channels=3
  """,
  # How `pixels.complete` found pictures normalised.
  "pixels": """
    pixel_mean           <-> /image_mean : tuple
    pixel_std            <-> /image_std : tuple
    /data.image.size     <-> image_size
  """,
  # The same, in the usual patches by default.
  "pixels_16": """
    @pixels
    image_size           <-> image_size ? 224
    patch_size           <-> patch_size ? 16
  """,
  # CLIP and its relatives: either tower, that of texts, that of pictures.
  "tower": """
    size.num_layers       <-> num_hidden_layers ? 12
    <-> attention_dropout~0.0
  """,
  "text_tower": """
    @tower
    @pre
    name=text positions=learned pool=last
    /data.text.max_tokens <-> max_position_embeddings
  """,
  "image_tower": """
    @tower
    @vit
    @pixels
    size.embed_dim        <-> hidden_size ? 768
    size.num_heads        <-> num_attention_heads ? 12
    size.mlp_dim          <-> intermediate_size ? 3072
    image_size            <-> image_size ? 224
    hidden=drop positions=learned
  """,
  # Theirs limits its scale while it is trained, if at all.
  "contrastive": """
    objectives.contrastive.name=contrastive
    model.shared_max_scale~0.0
  """,
}
# Of weights.
RULES = {
  # ViT, as transformers has it and its relatives.
  "vit_embeddings": """
    {cls,stem/positions/table}  <-> {cls_token,position_embeddings} : class
    stem/patches                <-> patch_embeddings.projection : conv
  """,
  "vit_block": r"""
    attention/{query,key,value} <-> \
      attention.attention.{query,key,value} : linear
    @vit_block_but_qkv
  """,
  "vit_block_but_qkv": """
    {attention,mlp}_norm        <-> layernorm_{before,after} : norm
    attention/out               <-> attention.output.dense : linear(2)
    mlp/hidden                  <-> intermediate.dense : linear
    mlp/out                     <-> output.dense : linear
  """,
  # BERT.
  "bert_embeddings": """
    positions/table             <-> position_embeddings.weight
    segments/table              <-> token_type_embeddings.weight
    norm                        <-> LayerNorm : norm
  """,
  "bert_block": """
    attention/{query,key,value} <-> attention.self.{query,key,value} : linear
    attention/out               <-> attention.output.dense : linear(2)
    attention_norm              <-> attention.output.LayerNorm : norm
    mlp/hidden                  <-> intermediate.dense : linear
    mlp/out                     <-> output.dense : linear
    mlp_norm                    <-> output.LayerNorm : norm
  """,
  # What BERT has before the logits of hidden words.
  "token_head": """
    hidden                      <-> transform.dense : linear
    norm                        <-> transform.LayerNorm : norm
  """,
  # Either tower of CLIP and SigLIP, and what both have beside.
  "tower_block": """
    {attention,mlp}_norm        <-> layer_norm{1,2} : norm
    attention/{query,key,value} <-> self_attn.{q,k,v}_proj : linear
    attention/out               <-> self_attn.out_proj : linear(2)
    mlp/{hidden,out}            <-> mlp.fc{1,2} : linear
  """,
  "towers": """
    [encoders_text/stack/layer_{i}/ <-> text_model.encoder.layers.{i}.]
    @tower_block
    [encoders_image/stack/layer_{i}/ <-> vision_model.encoder.layers.{i}.]
    @tower_block
    [encoders_text/stem/ <-> text_model.embeddings.]
    tokens/table    <-> token_embedding.weight : rows(text_config.vocab_size)
    positions/table <-> position_embedding.weight
    []
    encoders_text/stack/norm            <-> text_model.final_layer_norm : norm
    encoders_image/stack/norm           <-> vision_model.post_layernorm : norm
    - .*\\.embeddings\\.position_ids   : 0, 1, 2, ...
  """,
}
