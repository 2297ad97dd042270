r"""Pictures meet words that a released text encoder has learned already.

mmjax convert --from=hf:all-MiniLM-L6-v2/ --to=runs/minilm
mmjax train --config=configs/finetune/from_minilm.py:minilm \
  --workdir=runs/from_minilm/minilm

The starter's picture tower, from scratch, is aligned with MiniLM, which stays
as it is (as Zhai et al. 2022, arXiv:2111.07991, lock the tower that was
pretrained). `experiments/from_minilm.sh` trains it beside both towers from
scratch and prints a table of retrieval: after 150 s of steps on 2 CPU cores
R@10 of unseen concepts, image to text, is 0.37, and from scratch 0.14.
"""

from pathlib import Path

import ml_collections as mlc

ROOT = Path(__file__).resolve().parents[2]
MINILM = ROOT / "runs/minilm"
# As runs/minilm/config.json says; no dropout, since nothing in it is trained.
ENCODER = dict(
  name="text",
  pool="mean",
  max_tokens=512,
  num_segments=2,
  embedding_norm_epsilon=1e-12,
  size=dict(embed_dim=384, num_layers=6, num_heads=12, mlp_dim=1536),
  stack=dict(norm_position="post", activation="gelu", norm_epsilon=1e-12),
)
SMALL = dict(
  name="text",
  pool="mean",
  size=dict(embed_dim=128, num_layers=2, num_heads=2, mlp_dim=512),
)
# What reads texts, and steps that take about equal time on 2 CPU cores.
TOWERS = dict(
  minilm=dict(text=ENCODER, tokenizer=str(MINILM / "tokenizer.json")),
  scratch=dict(text=ENCODER, tokenizer=str(MINILM / "tokenizer.json")),
  small=dict(text=SMALL, tokenizer="starter"),
)
STEPS = dict(minilm=300, scratch=180, small=600)


def get_config(arg: str = "small") -> mlc.ConfigDict:
  """`arg`: "minilm"; "scratch", the same untrained; "small", the starter's."""
  if arg not in TOWERS:
    raise ValueError(f"{arg!r} is none of {sorted(TOWERS)}.")
  c = mlc.ConfigDict()
  c.stage = f"pictures and words, {arg}"
  c.data = dict(
    source="starter_emoji",
    split="train",
    image=dict(
      size=64,
      crop_scale=(0.8, 1.0),
      color_jitter=0.2,
      mask=dict(strategy="random", rate=0.25, patch_size=8),
    ),
    text=dict(
      tokenizer=TOWERS[arg]["tokenizer"],
      max_tokens=24,
      tag_rate=0.5,
      mask=dict(rate=0.2),
    ),
  )
  c.model = dict(
    encoders=dict(
      image=dict(
        name="vit",
        patch_size=8,
        pool="mean",
        hidden="drop",
        # Of the training pictures: emoji on white.
        pixel_mean=(0.82, 0.77, 0.71),
        pixel_std=(0.28, 0.28, 0.35),
        size=dict(embed_dim=192, num_layers=4, num_heads=3, mlp_dim=768),
      ),
      text=TOWERS[arg]["text"],
    ),
    shared_dim=128,
  )
  align = dict(name="contrastive", views=("masked", "masked"))
  c.tasks = dict(main=dict(objectives=dict(contrastive=align)))
  c.train = dict(num_steps=STEPS[arg], batch_size=128)
  c.optimizer = dict(peak_lr=1e-3, warmup_steps=30, weight_decay=0.1)
  if arg == "minilm":
    c.init = dict(from_checkpoint=str(MINILM), new=("(?!encoders_text/).*",))
    c.finetune = dict(frozen=("encoders_text/.*",))
  c.checkpoint = dict(every_steps=100)
  c.log = dict(every_steps=10)
  artist, concept = dict(split="unseen_artist"), dict(split="unseen_concept")
  c.evaluators = dict(
    unseen_concept=dict(name="retrieval", data=concept),
    unseen_artist=dict(name="retrieval", data=artist),
  )
  return c
