r"""Two towers of size S, pictures and texts, with SigLIP's loss; to be timed.

mmjax bench --config=configs/bench/siglip.py --peer=open_clip --peer=lean
mmjax train --config=configs/bench/siglip.py --workdir=runs/bench_siglip

`:half` drops half of the patches (FLIP, Li et al. 2023, arXiv:2212.00794),
`:B` has a ViT-B/16 and CLIP's text tower and loss, `:large_batch` loops over
layers and computes them again in the backward pass.
"""

import ml_collections as mlc

# CLIP's text tower (Radford et al. 2021, arXiv:2103.00020), 2.4.
CLIP_TEXT = dict(embed_dim=512, num_layers=12, num_heads=8, mlp_dim=2048)
LOOP = dict(stack=dict(scan=True, remat="full"))
VARIANTS = dict(
  S=dict(),
  half=dict(
    image=dict(hidden="drop"),
    mask=dict(rate=0.5, patch_size=16),
    views=("masked", "clean"),
  ),
  B=dict(
    image=dict(size="B"),
    text=dict(size=CLIP_TEXT),
    shared_dim=512,
    loss="info_nce",
  ),
  large_batch=dict(image=LOOP, text=LOOP),
)


def get_config(arg: str = "S") -> mlc.ConfigDict:
  """`arg` is one of `VARIANTS`."""
  if arg not in VARIANTS:
    raise ValueError(f"{arg!r} is none of {sorted(VARIANTS)}.")
  variant = VARIANTS[arg]
  c = mlc.ConfigDict()
  c.stage = f"two towers {arg}"
  c.data = dict(
    source="synthetic",
    image=dict(size=224, mask=variant.get("mask", {})),
    text=dict(tokenizer="starter", max_tokens=64),
  )
  image = dict(name="vit", patch_size=16, size="S") | variant.get("image", {})
  c.model = dict(
    encoders=dict(
      image=image,
      text=dict(name="text", size="S") | variant.get("text", {}),
    ),
    shared_dim=variant.get("shared_dim", 384),
    vocab_size=32_000,
  )
  contrastive = dict(
    name="contrastive",
    loss=variant.get("loss", "sigmoid"),
    views=variant.get("views", ()),
  )
  c.tasks = dict(main=dict(objectives=dict(contrastive=contrastive)))
  c.train = dict(num_steps=1000, batch_size=16)
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
