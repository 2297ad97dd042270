r"""Contrast, matching, masked words and patches on pairs; to be timed.

mmjax bench --config=configs/bench/flava.py:0.4 --peer=flava --peer=lean
mmjax train --config=configs/bench/flava.py --workdir=runs/bench_flava

The objectives of FLAVA (Singh et al. 2022, arXiv:2112.04482), 4.1, on towers
of size S and a joint encoder of six layers. `:0.4` and `:0.75` do it as mmjax
recommends: that share of the patches is dropped, all objectives read one masked
pass, and a light predictor looks up what was hidden. `:equal` does FLAVA's
work: nothing is dropped, both towers see the clean and the masked pair.

FLAVA's matching is told with the data which pairs belong together: here it is
told the shape in the picture, which costs as much.
"""

import ml_collections as mlc

FUSION = dict(base="S", num_layers=6)
# Half as wide as the encoder.
NARROW = dict(embed_dim=192, num_layers=2, num_heads=3, mlp_dim=768)
RATES = {"0.4": 0.4, "0.75": 0.75, "equal": 0.4}


def get_config(arg: str = "0.4") -> mlc.ConfigDict:
  """`arg` is one of `RATES`."""
  if arg not in RATES:
    raise ValueError(f"{arg!r} is none of {sorted(RATES)}.")
  drops = arg != "equal"
  c = mlc.ConfigDict()
  c.stage = f"mixture {arg}"
  c.data = dict(
    source="synthetic",
    image=dict(size=224, mask=dict(rate=RATES[arg], patch_size=16)),
    text=dict(tokenizer="starter", max_tokens=64, mask=dict(rate=0.15)),
    label=dict(field="group"),
  )
  c.model = dict(
    encoders=dict(
      image=dict(
        name="vit",
        patch_size=16,
        size="S",
        hidden="drop" if drops else "replace",
      ),
      text=dict(name="text", size="S"),
    ),
    fusion=dict(name="joint", size=FUSION, restore=not drops),
    shared_dim=384,
    vocab_size=32_000,
    visual_tokenizer=dict(
      name="random_projection", patch_size=16, num_codes=8192
    ),
  )
  if drops:
    c.model.decoders = dict(image=dict(name="predictor", size=NARROW))
  view = "masked" if drops else "clean"
  c.tasks = dict(
    main=dict(
      objectives=dict(
        contrastive=dict(name="contrastive", views=(view, view)),
        matching=dict(name="classification", given=("text",), view="masked"),
        mlm=dict(name="masked_lm"),
        # The predictor reads the picture alone.
        vtp=dict(
          name="vision_token_prediction", given=() if drops else ("text",)
        ),
      )
    )
  )
  c.train = dict(num_steps=1000, batch_size=8)
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
