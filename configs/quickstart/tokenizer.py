r"""Stage 1 of the quickstart: a visual tokenizer for 64x64 pictures.

40 s on 2 CPU cores; all 512 codes in use on held-out pictures, 15.8 dB.

mmjax train --config=configs/quickstart/tokenizer.py --workdir=runs/tokenizer
"""

import ml_collections as mlc


def get_config(arg: str = "") -> mlc.ConfigDict:
  """`arg` is not used."""
  del arg
  c = mlc.ConfigDict()
  c.stage = "1/3 visual tokenizer"
  c.data = dict(
    source="starter_emoji",
    split="train",
    image=dict(size=64, crop_scale=(0.6, 1.0)),
  )
  tower = dict(embed_dim=128, num_layers=2, num_heads=2, mlp_dim=512)
  c.model = dict(
    visual_tokenizer=dict(
      name="vq",
      patch_size=8,
      num_codes=512,
      code_dim=16,
      encoder_size=tower,
      decoder_size=tower,
    )
  )
  c.tasks = dict(
    main=dict(
      objectives=dict(
        # A codebook that has collapsed stops the run.
        tokenizer=dict(name="tokenizer_training", min_usage=0.5)
      )
    )
  )
  c.train = dict(num_steps=240, batch_size=32)
  c.optimizer = dict(peak_lr=2e-3, warmup_steps=30, weight_decay=0.01)
  c.checkpoint = dict(every_steps=100)
  c.log = dict(every_steps=20)
  c.evaluators = dict(
    unseen_artist=dict(name="reconstruction", data=dict(split="unseen_artist"))
  )
  return c
