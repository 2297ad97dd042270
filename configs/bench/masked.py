r"""Masked patches, or masked words, of one tower of size S; to be timed.

mmjax bench --config=configs/bench/masked.py:predictor
mmjax train --config=configs/bench/masked.py --workdir=runs/bench_masked

Of the patches 3/4 are hidden: `:replace` puts a token in their place (BEiT),
`:patches` drops them and decodes all positions (MAE), `:predictor` drops them
and decodes these alone (CrossMAE). `:words` predicts 15 % of the tokens of
texts, `:all_words` all but the first and last.
"""

import ml_collections as mlc

# Half as wide as the encoder.
NARROW = dict(embed_dim=192, num_layers=4, num_heads=3, mlp_dim=768)
DECODERS = dict(
  replace={},
  patches=dict(image=dict(name="patches", size=NARROW)),
  predictor=dict(image=dict(name="predictor", size=dict(NARROW, num_layers=2))),
)
WORD_RATES = dict(words=0.15, all_words=0.97)  # Of 64 tokens 10, and 63.


def get_config(arg: str = "predictor") -> mlc.ConfigDict:
  """`arg` is one of `DECODERS` or `WORD_RATES`."""
  if arg not in (*DECODERS, *WORD_RATES):
    raise ValueError(f"{arg!r} is none of {[*DECODERS, *WORD_RATES]}.")
  c = mlc.ConfigDict()
  c.stage = f"masked {arg}"
  if arg in DECODERS:
    _patches(c, arg)
  else:
    _words(c, WORD_RATES[arg])
  # As all peers: no clipping, no warm-up.
  c.optimizer = dict(
    peak_lr=1e-3,
    schedule="constant",
    weight_decay=1e-4,
    b2=0.999,
    clip_norm=0.0,
  )
  c.evaluators = dict(loss=dict(name="loss"))
  return c


def _patches(c, decoder):
  c.data = dict(
    source="synthetic",
    image=dict(size=224, mask=dict(rate=0.75, patch_size=16)),
  )
  c.model = dict(
    encoders=dict(
      image=dict(
        name="vit",
        patch_size=16,
        size="S",
        hidden="replace" if decoder == "replace" else "drop",
      )
    ),
    decoders=DECODERS[decoder],
    visual_tokenizer=dict(
      name="random_projection", patch_size=16, num_codes=8192
    ),
  )
  objective = dict(name="vision_token_prediction", given=())
  c.tasks = dict(main=dict(objectives=dict(vtp=objective)))
  c.train = dict(num_steps=1000, batch_size=8)


def _words(c, rate):
  c.data = dict(
    source="synthetic",
    text=dict(tokenizer="starter", max_tokens=64, mask=dict(rate=rate)),
  )
  c.model = dict(
    encoders=dict(text=dict(name="text", size="S")), vocab_size=32_000
  )
  objective = dict(name="masked_lm", given=())
  c.tasks = dict(main=dict(objectives=dict(mlm=objective)))
  c.train = dict(num_steps=1000, batch_size=32)
