r"""A ViT-S/16 that classifies pictures of 224 pixels; to be timed, not trained.

mmjax bench --config=configs/bench/vit.py --peer=timm --peer=lean
mmjax train --config=configs/bench/vit.py --workdir=runs/bench_vit

`:B` and `:L` are larger, `:scan` loops over layers and computes them again in
the backward pass. Of 1000 classes, the drawn pictures have four.
"""

import ml_collections as mlc

VARIANTS = dict(
  S=dict(size="S"),
  B=dict(size="B"),
  L=dict(size="L"),
  scan=dict(size="S", stack=dict(scan=True, remat="full")),
)
SHAPES = ("circle", "diamond", "square", "triangle")
CLASSES = (*SHAPES, *(f"nothing {i}" for i in range(996)))


def get_config(arg: str = "S") -> mlc.ConfigDict:
  """`arg` is one of `VARIANTS`."""
  if arg not in VARIANTS:
    raise ValueError(f"{arg!r} is none of {sorted(VARIANTS)}.")
  c = mlc.ConfigDict()
  c.stage = f"classification {arg}"
  c.data = dict(
    source="synthetic",
    image=dict(size=224),
    label=dict(field="group", names=CLASSES),
  )
  c.model = dict(
    encoders=dict(image=dict(name="vit", patch_size=16, **VARIANTS[arg]))
  )
  c.tasks = dict(main=dict(objectives=dict(label=dict(name="classification"))))
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
