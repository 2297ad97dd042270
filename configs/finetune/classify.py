r"""Names the subgroup of a picture, one of 97, four ways to fine-tune.

mmjax train --config=configs/finetune/classify.py:lora --workdir=runs/lora

`experiments/finetune_methods.sh` runs them all and prints a table. Needs
`make quickstart`, whose picture tower they start from.
"""

from pathlib import Path

import ml_collections as mlc

ROOT = Path(__file__).resolve().parents[2]
HEAD = "heads_label/.*"
# What is trained of the tower, besides the head, and the learning rate.
METHODS = dict(
  probe=dict(peak_lr=1e-2, finetune=dict(trainable=(HEAD,))),
  lora=dict(
    peak_lr=3e-3,
    finetune=dict(
      trainable=(HEAD,),
      lora=dict(rank=8, alpha=16.0, targets=("encoders_image/stack/.*",)),
    ),
  ),
  last_block=dict(
    peak_lr=1e-3,
    finetune=dict(
      trainable=(
        HEAD,
        "encoders_image/stack/layer_03/.*",
        "encoders_image/stack/norm/.*",
      )
    ),
  ),
  full=dict(peak_lr=1e-3, finetune=dict()),
)


def get_config(arg: str = "full") -> mlc.ConfigDict:
  """`arg` is one of `METHODS`: which parameters are trained."""
  if arg not in METHODS:
    raise ValueError(f"{arg!r} is none of {sorted(METHODS)}.")
  method = METHODS[arg]
  c = mlc.ConfigDict()
  c.stage = f"97 subgroups, {arg}"
  c.data = dict(
    source="starter_emoji",
    split="train",
    image=dict(size=64, crop_scale=(0.8, 1.0), color_jitter=0.3, blur=2.0),
    label=dict(field="subgroup"),
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
    )
  )
  c.tasks = dict(main=dict(objectives=dict(label=dict(name="classification"))))
  c.train = dict(num_steps=400, batch_size=64)
  c.optimizer = dict(
    peak_lr=method["peak_lr"], warmup_steps=30, weight_decay=0.05
  )
  c.init = dict(
    from_checkpoint=str(ROOT / "runs/quickstart/pretrain"),
    new=(HEAD,),
    dropped=("(?!encoders_image/).*",),
  )
  c.finetune = method["finetune"]
  c.checkpoint = dict(every_steps=200)
  c.log = dict(every_steps=20)
  c.evaluators = dict(
    unseen_artist=dict(name="classification", data=dict(split="unseen_artist")),
    unseen_concept=dict(
      name="classification", data=dict(split="unseen_concept")
    ),
  )
  return c
