r"""Says what an emoji shows, word by word, also of an artist never seen.

mmjax train --config=configs/finetune/caption.py --workdir=runs/caption

Needs `make quickstart`, whose picture tower it starts from.
"""

from pathlib import Path

import ml_collections as mlc

ROOT = Path(__file__).resolve().parents[2]


def get_config(arg: str = "") -> mlc.ConfigDict:
  """`arg` is not used."""
  del arg
  c = mlc.ConfigDict()
  c.stage = "captioning"
  c.data = dict(
    source="starter_emoji",
    split="train",
    image=dict(size=64, crop_scale=(0.8, 1.0), color_jitter=0.3, blur=2.0),
    text=dict(tokenizer="starter", max_tokens=24, field="label_en"),
  )
  c.model = dict(
    encoders=dict(
      image=dict(
        name="vit",
        patch_size=8,
        pool="mean",
        hidden="drop",
        pixel_mean=(0.82, 0.77, 0.71),
        pixel_std=(0.28, 0.28, 0.35),
        size=dict(embed_dim=192, num_layers=4, num_heads=3, mlp_dim=768),
      )
    ),
    decoders=dict(
      text=dict(
        name="text",
        size=dict(embed_dim=128, num_layers=2, num_heads=2, mlp_dim=512),
      )
    ),
  )
  c.tasks = dict(main=dict(objectives=dict(caption=dict(name="captioning"))))
  c.train = dict(num_steps=1000, batch_size=64)
  c.optimizer = dict(peak_lr=1e-3, warmup_steps=50, weight_decay=0.05)
  c.init = dict(
    from_checkpoint=str(ROOT / "runs/quickstart/pretrain"),
    new=("decoders_text/.*", "heads_lm/.*"),
    dropped=("(?!encoders_image/).*",),
  )
  c.checkpoint = dict(every_steps=200)
  c.log = dict(every_steps=20)
  artist, concept = dict(split="unseen_artist"), dict(split="unseen_concept")
  says = dict(name="captioning", generation=dict(max_tokens=16), num_shown=16)
  c.evaluators = dict(
    loss=dict(name="loss", every_steps=100, data=artist),
    captions_unseen_artist=dict(data=artist, **says),
    captions_unseen_concept=dict(data=concept, **says),
  )
  return c
