r"""Talks about pictures, in English and Chinese, from the pretrained tower.

mmjax train --config=configs/finetune/chat.py --workdir=runs/chat
mmjax generate --chat --workdir=runs/chat

Conversations are made from the starter tables and from easy-VQA as they are
read (pip install 'mmjax[examples]'; `:starter` does without the latter).
`:tiny` is for tests. Needs `make quickstart`, whose picture tower it starts
from. 11 minutes teach turns, wording and the colours of shapes, not yet the
names of emoji: docs/chat.md.
"""

from pathlib import Path

import ml_collections as mlc

ROOT = Path(__file__).resolve().parents[2]
ARGS = ("", "starter", "tiny")


def get_config(arg: str = "") -> mlc.ConfigDict:
  """`arg` is "", "starter" (no easy-VQA), or "tiny" (that, from scratch)."""
  if arg not in ARGS:
    raise ValueError(f"{arg!r} is none of {ARGS}.")
  tiny = arg == "tiny"
  small = dict(embed_dim=32, num_layers=1, num_heads=2, mlp_dim=64)
  tower = dict(embed_dim=192, num_layers=4, num_heads=3, mlp_dim=768)
  patch_size = 32 if tiny else 8
  c = mlc.ConfigDict()
  c.stage = "chat"
  c.data = dict(
    source="starter_conversations",
    split="unseen_concept" if tiny else "train",
    conversation=dict(
      tokenizer="starter",
      max_tokens=96 if tiny else 192,
      max_images=2 if tiny else 6,
      patch_size=patch_size,
      pool=1 if tiny else 4,  # Four places for a picture, not 64.
      pack=True,
      image=dict(size=64, crop_scale=(0.8, 1.0), color_jitter=0.3, blur=2.0),
    ),
  )
  c.model = dict(
    encoders=dict(
      image=dict(
        name="vit",
        patch_size=patch_size,
        pool="mean",
        hidden="drop",
        pixel_mean=(0.82, 0.77, 0.71),
        pixel_std=(0.28, 0.28, 0.35),
        size=small if tiny else tower,
      )
    ),
    decoders=dict(
      text=dict(
        name="text",
        context="inline",
        positions="rotary",
        size=small if tiny else dict(tower, num_layers=3),
      )
    ),
  )
  talk = dict(name="conversation")
  c.tasks = dict(pictures=dict(rate=2.0, objectives=dict(chat=talk)))
  if not arg:
    shapes = dict(source="easy_vqa_conversations")
    c.tasks.shapes = dict(rate=1.0, data=shapes, objectives=dict(ask=talk))
  c.mixture = "sample"
  c.train = dict(num_steps=4 if tiny else 1200, batch_size=8)
  c.optimizer = dict(peak_lr=1e-3, warmup_steps=2 if tiny else 50)
  c.optimizer.weight_decay = 0.05
  if not tiny:
    # The tower knows what it sees; the decoder has all to learn.
    c.optimizer.lr_factors = (("encoders_image/.*", 0.2),)
    c.init = dict(
      from_checkpoint=str(ROOT / "runs/quickstart/pretrain"),
      new=("decoders_text/.*", "heads_lm/.*"),
      dropped=("(?!encoders_image/).*",),
    )
  c.checkpoint = dict(every_steps=0 if tiny else 200)
  c.log = dict(every_steps=20, evaluate_at_end=False)
  if not tiny:
    c.evaluators = _evaluators()
    if not arg:
      c.evaluators.update(_of_shapes())
  return c


def _of_shapes():
  """Replies to the last question about each of the first test pictures."""
  return dict(
    replies_shapes=dict(
      name="vqa_generated",
      task="shapes",
      question="question",
      answers="reply",
      generation=dict(max_tokens=6, objective="ask"),
      data=dict(split="test[:20%]", conversation=dict(pack=False, reply=True)),
    )
  )


def _evaluators():
  """Loss and replies on pictures by an unseen artist and of unseen things."""
  evaluators = {}
  for split in ("unseen_artist", "unseen_concept"):
    evaluators[f"loss_{split}"] = dict(
      name="loss", task="pictures", data=dict(split=split)
    )
    evaluators[f"replies_{split}"] = dict(
      name="vqa_generated",
      task="pictures",
      question="question",
      answers="reply",
      generation=dict(max_tokens=24, objective="chat"),
      data=dict(split=split, conversation=dict(pack=False, reply=True)),
    )
  return evaluators
