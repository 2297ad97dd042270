r"""Answers questions about pictures of one shape, from the pretrained towers.

mmjax train --config=configs/finetune/vqa.py --workdir=runs/vqa

`:scratch` starts from nothing, at equal steps; `:generate` says the answer
with a decoder instead of picking it from the list of 13. Needs
`make quickstart`, and `pip install 'mmjax[examples]'` for the data.
"""

from pathlib import Path

import ml_collections as mlc

ROOT = Path(__file__).resolve().parents[2]
ARGS = ("", "scratch", "generate")
SMALL = dict(embed_dim=128, num_layers=2, num_heads=2, mlp_dim=512)


def get_config(arg: str = "") -> mlc.ConfigDict:
  """`arg` is "", "scratch" or "generate"."""
  if arg not in ARGS:
    raise ValueError(f"{arg!r} is none of {ARGS}.")
  generate = arg == "generate"
  c = mlc.ConfigDict()
  c.stage = f"question answering{arg and ', '}{arg}"
  c.data = dict(
    source="easy_vqa",
    split="train",
    # No question asks for left or right.
    image=dict(size=64, crop_scale=(1.0, 1.0), flip=True),
    text=dict(tokenizer="starter", max_tokens=24, field="question"),
    label=None if generate else dict(field="answer"),
    answer=dict(field="answer", max_tokens=6) if generate else None,
  )
  c.model = dict(
    # The towers of quickstart/pretrain.py.
    encoders=dict(
      image=dict(
        name="vit",
        patch_size=8,
        pool="mean",
        hidden="drop",
        pixel_mean=(0.82, 0.77, 0.71),
        pixel_std=(0.28, 0.28, 0.35),
        size=dict(embed_dim=192, num_layers=4, num_heads=3, mlp_dim=768),
      ),
      text=dict(name="text", pool="mean", size=SMALL),
    ),
    # Of joint, cross_attention and this one, the first to leave what the
    # question says by itself, in short trials. A third layer made the same
    # loss in half the steps.
    fusion=dict(name="film", size=dict(SMALL, num_layers=3)),
  )
  new = ("fusion/.*", "heads_answer/.*")
  if generate:
    c.model.decoders = dict(
      answer=dict(name="text", size=dict(SMALL, num_layers=1))
    )
    new = (*new, "decoders_answer/.*")
  # What shapes and colours are called is best learned by being asked: yes or
  # no says little. So these questions come first, then all.
  asked = dict(name="vqa", generate=generate)
  c.mixture = "sample"
  c.tasks = dict(
    open=dict(
      data=dict(split="train_open"),
      objectives=dict(answer_open=asked),
      rate=dict(name="linear", points=((0, 1.0), (800, 0.1))),
    ),
    all=dict(
      objectives=dict(answer=asked),
      rate=dict(name="linear", points=((0, 0.0), (800, 0.9))),
    ),
  )
  c.optimizer = dict()
  if arg != "scratch":
    c.init = dict(
      from_checkpoint=str(ROOT / "runs/quickstart/pretrain"),
      new=new,
      dropped=("(?!encoders_).*",),
    )
    # Shapes came sooner so than at the full rate, in two runs that also drew
    # their tasks differently.
    c.optimizer = dict(lr_factors=(("encoders_image/.*", 0.2),))
  # Small batches: what counts here is the number of steps.
  c.train = dict(num_steps=4800, batch_size=32)
  c.optimizer.update(peak_lr=1e-3, warmup_steps=50, weight_decay=0.05)
  c.checkpoint = dict(every_steps=800)
  c.log = dict(every_steps=50)
  picked = dict(modality="text", given=("image",), head="answer")
  c.evaluators = dict(
    test=dict(name="classification", data=dict(split="test"), **picked),
    answers=dict(
      name="vqa", by="question_type", data=dict(split="test"), num_shown=16
    ),
    # Cheap enough to follow the training.
    test_fifth=dict(
      name="classification",
      every_steps=400,
      data=dict(split="test[:20%]"),
      **picked,
    ),
  )
  if generate:
    c.evaluators = dict(
      loss=dict(name="loss", data=dict(split="test")),
      answers=dict(
        name="vqa_generated",
        by="question_type",
        data=dict(split="test"),
        generation=dict(max_tokens=6),
        num_shown=16,
      ),
    )
  return c
