r"""ViT-L/16, a text encoder of size L and a joint encoder, for a pod of TPUs.

mmjax plan --config=configs/pretrain/joint_l16.py --topology=v5e:16x16
mmjax train --config=configs/pretrain/joint_l16.py --workdir=runs/joint_l16

Masked words, hidden patches' codes and contrastive alignment of 16,384 pairs
a step, 64 a chip of v5e:16x16. What that costs is planned, not run: see
`experiments/plans/joint_l16.md`.

Data and tokenizers are stand-ins that need no download: set data.source,
data.path and data.text.tokenizer, and init.from_checkpoint to a visual
tokenizer, as in configs/quickstart/pretrain.py.
"""

import ml_collections as mlc

# Scanned: one layer is compiled, not 24. "dots" keeps the results of products
# with weights and computes the rest again.
STACK = dict(scan=True, remat="dots")
SMALL = dict(embed_dim=384, num_layers=6, num_heads=6, mlp_dim=1536)


def get_config(arg: str = "") -> mlc.ConfigDict:
  """`arg` is not used."""
  del arg
  c = mlc.ConfigDict()
  c.stage = "joint L/16 pretraining"
  c.data = dict(
    source="synthetic",
    image=dict(
      size=224,
      crop_scale=(0.4, 1.0),
      # 92 of 196 patches: 104 are left, a multiple of the 8 that TPUs pad to.
      mask=dict(strategy="blockwise", rate=0.47, patch_size=16),
    ),
    # With 196 patches, 256 tokens for the joint encoder.
    text=dict(tokenizer="starter", max_tokens=60, mask=dict(rate=0.2)),
  )
  c.model = dict(
    precision="auto",
    encoders=dict(
      image=dict(
        name="vit", patch_size=16, size="L", hidden="drop", stack=STACK
      ),
      text=dict(name="text", size="L", stack=STACK),
    ),
    fusion=dict(name="joint", size=dict(base="L", num_layers=6), stack=STACK),
    shared_dim=512,
    visual_tokenizer=dict(
      name="vq",
      patch_size=16,
      num_codes=8192,
      code_dim=32,
      encoder_size=SMALL,
      decoder_size=SMALL,
    ),
  )
  c.tasks = dict(
    main=dict(
      objectives=dict(
        mlm=dict(name="masked_lm"),
        vtp=dict(name="vision_token_prediction"),
        # FLIP's, of the pass that the other two read.
        contrastive=dict(name="contrastive", views=("masked", "masked")),
      )
    )
  )
  c.finetune = dict(frozen=("visual_tokenizer/.*",))
  c.train = dict(num_steps=100_000, batch_size=16_384)
  # Parameters and optimizer over 16 chips along the width of 1024; more would
  # leave slivers that XLA gathers badly.
  c.mesh = dict(data=-1, fsdp=16, rules="fsdp")
  c.optimizer = dict(peak_lr=1e-3, warmup_steps=5_000, weight_decay=0.1)
  c.checkpoint = dict(every_steps=1_000)
  c.evaluators = dict(
    loss=dict(name="loss", every_steps=5_000, data=dict(split="test"))
  )
  return c
