r"""Pictures from words, a toy: codes of hidden patches, given the text.

17 min on 2 CPU cores with other work beside it; loss of all codes given text
4.51 on the training pictures, 5.43 on unseen concepts (chance 6.24).

mmjax train --config=configs/pretrain/text_to_image.py --workdir=runs/paint
mmjax generate --workdir=runs/paint --prompt="red apple" --out=apple.png

How many patches are hidden is drawn anew in each step, all of them too: so the
model can fill in an empty picture step by step (MaskGIT, Chang et al. 2022).
Needs the tokenizer of `make quickstart`.
"""

from pathlib import Path

import ml_collections as mlc

ROOT = Path(__file__).resolve().parents[2]
# Share of hidden patches -> how often. Pictures are begun from words alone, and
# what is chosen first decides the rest.
RATES = {1.0: 2.0, 0.9: 1.0, 0.7: 1.0, 0.4: 1.0}


def get_config(arg: str = "") -> mlc.ConfigDict:
  """`arg` is not used."""
  del arg
  c = mlc.ConfigDict()
  c.stage = "text to image"
  c.data = dict(
    source="starter_emoji",
    split="train",
    cache_mib=64,  # Of each task; 3,474 pictures have 43 MiB.
    image=dict(size=64, crop_scale=(0.9, 1.0)),
    text=dict(tokenizer="starter", max_tokens=24, tag_rate=0.25),
  )
  small = dict(embed_dim=128, num_layers=2, num_heads=2, mlp_dim=512)
  c.model = dict(
    encoders=dict(
      image=dict(
        name="vit",
        patch_size=8,
        hidden="replace",  # An empty picture still has its patches.
        pixel_mean=(0.82, 0.77, 0.71),
        pixel_std=(0.28, 0.28, 0.35),
        size=small,
      ),
      text=dict(name="text", size=small),
    ),
    # Most of the work is done where words and patches meet.
    fusion=dict(
      name="joint",
      size=dict(embed_dim=192, num_layers=4, num_heads=3, mlp_dim=768),
    ),
    # As in quickstart/tokenizer.py, whose checkpoint it comes from.
    visual_tokenizer=dict(
      name="vq",
      patch_size=8,
      num_codes=512,
      code_dim=16,
      encoder_size=small,
      decoder_size=small,
    ),
  )
  c.mixture = "sample"
  c.tasks = {
    _name(rate): dict(
      rate=often,
      data=dict(image=dict(mask=dict(rate=rate, patch_size=8))),
      objectives={
        f"vtp_{_name(rate)}": dict(name="vision_token_prediction", decoded=True)
      },
    )
    for rate, often in RATES.items()
  }
  c.train = dict(num_steps=800, batch_size=64)
  c.optimizer = dict(
    peak_lr=1.5e-3, warmup_steps=50, weight_decay=0.05, ema_decay=0.99
  )
  c.init = dict(
    from_checkpoint=str(ROOT / "runs/quickstart/tokenizer"),
    new=("(?!visual_tokenizer/).*",),
  )
  c.finetune = dict(frozen=("visual_tokenizer/.*",))
  c.checkpoint = dict(every_steps=200)
  c.log = dict(every_steps=25)
  # How much the words say about the whole picture; on the training pictures,
  # too: a toy learns these by heart.
  c.evaluators = {
    split: dict(name="loss", task="hide_100", data=dict(split=split))
    for split in ("train", "unseen_concept_train_artists", "unseen_artist")
  }
  return c


def _name(rate):
  return f"hide_{round(100 * rate)}"
