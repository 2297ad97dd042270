r"""The three stages at a size for tests, on drawn shapes.

mmjax train --config=tests/e2e/tiny.py:tokenizer --workdir=W
"""

import ml_collections as mlc

TOWER = dict(embed_dim=16, num_layers=1, num_heads=2, mlp_dim=32)
TOKENIZER = dict(
  name="vq",
  patch_size=8,
  num_codes=16,
  code_dim=8,
  encoder_size=TOWER,
  decoder_size=TOWER,
)
IMAGE = dict(
  name="vit", patch_size=8, size=dict(base="Ti", **TOWER), hidden="drop"
)

HELD_OUT = dict(split="test")
EVALUATORS = dict(
  tokenizer=dict(pictures=dict(name="reconstruction", data=HELD_OUT)),
  pretrain=dict(
    loss=dict(name="loss", every_steps=2, data=HELD_OUT),
    retrieval=dict(name="retrieval", data=HELD_OUT),
    masked=dict(name="masked_prediction", data=HELD_OUT),
  ),
  finetune=dict(shapes=dict(name="classification", data=HELD_OUT)),
)


def get_config(arg: str = "tokenizer") -> mlc.ConfigDict:
  """`arg` is the stage: tokenizer, pretrain or finetune.

  With ",evaluated" after it, the stage has its evaluators too.
  """
  arg, _, evaluated = arg.partition(",")
  c = mlc.ConfigDict()
  c.stage = arg
  c.data = dict(source="synthetic", image=dict(size=32))
  c.train = dict(num_steps=12, batch_size=8)
  c.optimizer = dict(peak_lr=3e-3, warmup_steps=4)
  c.log = dict(every_steps=1, tensorboard=False)
  c.checkpoint = dict(every_steps=3)
  c.model = dict(precision="float32")
  stages = {"tokenizer": tokenizer, "pretrain": pretrain, "finetune": finetune}
  stages[arg](c)
  if evaluated:
    c.evaluators = EVALUATORS[arg]
  return c


def tokenizer(c):
  c.model.visual_tokenizer = dict(TOKENIZER)
  c.tasks = dict(
    main=dict(objectives=dict(codes=dict(name="tokenizer_training")))
  )


def pretrain(c):
  c.data.image.mask = dict(rate=0.5, patch_size=8)
  c.data.text = dict(max_tokens=12, mask=dict(rate=0.3))
  c.model.encoders = dict(
    image=dict(IMAGE), text=dict(name="text", size=dict(TOWER))
  )
  c.model.fusion = dict(name="joint", size=dict(TOWER))
  c.model.shared_dim = 8
  c.model.visual_tokenizer = dict(TOKENIZER)
  c.tasks = dict(
    main=dict(
      objectives=dict(
        mlm=dict(name="masked_lm"),
        vtp=dict(name="vision_token_prediction"),
        contrastive=dict(name="contrastive"),
      )
    )
  )
  c.finetune = dict(frozen=("visual_tokenizer/.*",))


def finetune(c):
  c.data.label = dict(field="group")
  c.model.encoders = dict(image=dict(IMAGE))
  c.tasks = dict(main=dict(objectives=dict(label=dict(name="classification"))))
  c.finetune = dict(frozen=("encoders_image/stem/.*",))
