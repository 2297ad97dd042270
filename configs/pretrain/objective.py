r"""One objective alone on the starter pictures and words, small and short.

mmjax train --config=configs/pretrain/objective.py:captioning --workdir=W

`experiments/objectives.sh` runs them all. What predicts codes needs the
tokenizer of `make quickstart`, what learns from a teacher its pretraining.
"""

from pathlib import Path

import ml_collections as mlc

ROOT = Path(__file__).resolve().parents[2]
QUICKSTART = ROOT / "runs/quickstart"
SMALL = dict(embed_dim=128, num_layers=2, num_heads=2, mlp_dim=512)
LIGHT = dict(SMALL, num_layers=1)
PIXELS = dict(pixel_mean=(0.82, 0.77, 0.71), pixel_std=(0.28, 0.28, 0.35))
TOKENIZER = dict(
  patch_size=8,
  num_codes=512,
  code_dim=16,
  encoder_size=SMALL,
  decoder_size=SMALL,
)
DECODER = dict(text=dict(name="text", size=LIGHT))
RESTORE = dict(image=dict(name="patches", size=LIGHT))
HIDE = dict(strategy="blockwise", rate=0.5, patch_size=8)

# Fields of each objective, and what they need of the other groups.
OBJECTIVES = dict(
  captioning=dict(objective=dict(), decoders=DECODER),
  # Three texts in four are predicted all at once.
  captioning_parallel=dict(
    objective=dict(name="captioning", parallel=True),
    decoders=DECODER,
    text=dict(parallel=dict(rate=0.75)),
  ),
  causal_lm=dict(objective=dict(), decoders=DECODER),
  classification=dict(objective=dict(), label=dict(field="group")),
  contrastive=dict(objective=dict()),
  distillation=dict(objective=dict(), teacher=str(QUICKSTART / "pretrain")),
  masked_feature_prediction=dict(objective=dict(), hide=HIDE, ema=0.98),
  masked_lm=dict(objective=dict()),
  masked_pixel_regression=dict(
    objective=dict(),
    hide=dict(HIDE, strategy="random", rate=0.75),
    hidden="drop",
    decoders=RESTORE,
  ),
  matching=dict(objective=dict(), also=dict(contrastive=dict())),
  prefix_lm=dict(
    objective=dict(),
    decoders=dict(text=dict(DECODER["text"], context="prefix")),
    text=dict(prefix=dict(rate=0.5)),
  ),
  tokenizer_distillation=dict(
    objective=dict(),
    teacher=str(QUICKSTART / "pretrain"),
    tokenizer=dict(TOKENIZER, name="vq_kd"),
  ),
  tokenizer_training=dict(
    objective=dict(), tokenizer=dict(TOKENIZER, name="vq")
  ),
  # 8 x 8 x 8 codes without a codebook.
  tokenizer_training_fsq=dict(
    objective=dict(name="tokenizer_training", commitment_weight=0.0),
    tokenizer=dict(
      name="fsq",
      patch_size=8,
      levels=(8, 8, 8),
      encoder_size=SMALL,
      decoder_size=SMALL,
    ),
  ),
  vision_token_prediction=dict(
    objective=dict(),
    hide=HIDE,
    tokenizer=dict(TOKENIZER, name="vq"),
    trained_tokenizer=True,
  ),
  vqa=dict(
    objective=dict(),
    question=dict(templates=(("Which group?", "group"),)),
    text=dict(field="question"),
    label=dict(field="group"),
  ),
  # The same, but the answer is said, not picked.
  vqa_generate=dict(
    objective=dict(name="vqa", generate=True),
    question=dict(
      templates=(
        ("Which group?", "group"),
        ("Which subgroup?", "subgroup"),
      )
    ),
    text=dict(field="question"),
    answer=dict(field="answer_text", max_tokens=12),
    decoders=dict(answer=DECODER["text"]),
  ),
)


def get_config(arg: str = "masked_lm") -> mlc.ConfigDict:
  """`arg` is one of `OBJECTIVES`, by default masked language modelling."""
  if arg not in OBJECTIVES:
    raise ValueError(f"{arg!r} is none of {sorted(OBJECTIVES)}.")
  needs = OBJECTIVES[arg]
  c = mlc.ConfigDict()
  c.stage = arg
  c.data = dict(
    source="starter_emoji",
    image=dict(size=64, crop_scale=(0.8, 1.0), mask=needs.get("hide", {})),
    text=dict(
      tokenizer="starter",
      max_tokens=24,
      tag_rate=0.5,
      mask=dict(rate=0.2),
      **needs.get("text", {}),
    ),
    question=needs.get("question"),
    answer=needs.get("answer"),
    label=needs.get("label"),
  )
  c.model = dict(
    encoders=dict(
      image=dict(
        name="vit",
        patch_size=8,
        hidden=needs.get("hidden", "replace"),
        size=SMALL,
        **PIXELS,
      ),
      text=dict(name="text", size=SMALL),
    ),
    fusion=dict(name="joint", size=LIGHT),
    shared_dim=128,
    decoders=needs.get("decoders", {}),
    visual_tokenizer=needs.get("tokenizer", {}),
    teacher=needs.get("teacher", ""),
  )
  also = {
    name: dict(name=name, **fields)
    for name, fields in needs.get("also", {}).items()
  }
  objectives = {arg: {"name": arg, **needs["objective"]}, **also}
  c.tasks = dict(main=dict(objectives=objectives))
  if needs.get("trained_tokenizer"):
    c.init = dict(
      from_checkpoint=str(QUICKSTART / "tokenizer"),
      new=("(?!visual_tokenizer/).*",),
    )
    c.finetune = dict(frozen=("visual_tokenizer/.*",))
  c.train = dict(num_steps=150, batch_size=32)
  c.optimizer = dict(
    peak_lr=1e-3,
    warmup_steps=20,
    weight_decay=0.05,
    ema_decay=needs.get("ema", 0.0),
  )
  c.log = dict(every_steps=25)
  c.evaluators = dict(
    unseen_artist=dict(name="loss", data=dict(split="unseen_artist"))
  )
  return c
