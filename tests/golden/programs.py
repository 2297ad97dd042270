"""Small configs of each kind of training, whose compiled steps are watched.

Sizes differ from each other, so that an array's shape says what it is.
"""

import ml_collections as mlc

BATCH, IMAGE, PATCH, TOKENS = 8, 32, 8, 12
WIDTH, LAYERS, HEADS, MLP, SHARED = 32, 2, 2, 80, 24
CODES, CODE_DIM, RANK = 56, 10, 4
HIDDEN_PATCHES = 8  # Of 16.

TOWER = dict(embed_dim=WIDTH, num_layers=LAYERS, num_heads=HEADS, mlp_dim=MLP)
ONE_LAYER = dict(TOWER, num_layers=1)
IMAGES = dict(name="vit", patch_size=PATCH, size=dict(TOWER), hidden="drop")
TEXTS = dict(name="text", size=dict(TOWER))


def classification(c):
  c.data.label = dict(field="group")
  c.model.encoders = dict(image=dict(IMAGES))
  objectives(c, label=dict(name="classification"))


def two_towers(c):
  c.data.text = dict(max_tokens=TOKENS)
  c.model.encoders = dict(image=dict(IMAGES), text=dict(TEXTS))
  c.model.shared_dim = SHARED
  objectives(c, pairs=dict(name="contrastive", loss="sigmoid"))


def pretraining(c):
  """One masked pass of each modality feeds four losses, as in FLAVA."""
  c.data.image.mask = dict(rate=HIDDEN_PATCHES / 16, patch_size=PATCH)
  c.data.text = dict(max_tokens=TOKENS, mask=dict(rate=0.3))
  c.model.encoders = dict(image=dict(IMAGES), text=dict(TEXTS))
  c.model.fusion = dict(name="joint", size=dict(ONE_LAYER))
  c.model.shared_dim = SHARED
  c.model.visual_tokenizer = dict(
    name="vq",
    patch_size=PATCH,
    num_codes=CODES,
    code_dim=CODE_DIM,
    encoder_size=dict(ONE_LAYER),
    decoder_size=dict(ONE_LAYER),
  )
  objectives(
    c,
    mlm=dict(name="masked_lm"),
    vtp=dict(name="vision_token_prediction"),
    pairs=dict(name="contrastive", views=("masked", "masked")),
  )
  c.finetune = dict(frozen=("visual_tokenizer/.*",))


def captioning(c):
  c.data.text = dict(max_tokens=TOKENS)
  c.model.encoders = dict(image=dict(IMAGES))
  c.model.decoders = dict(text=dict(name="text", size=dict(TOWER)))
  objectives(c, caption=dict(name="captioning"))


def adapters(c):
  """Classification with adapters at queries and values, and a trained head."""
  classification(c)
  c.finetune = dict(trainable=("heads_label/.*",), lora=dict(rank=RANK))


def objectives(c, **named):
  c.tasks = dict(main=dict(objectives=named))


KINDS = {
  make.__name__: make
  for make in (classification, two_towers, pretraining, captioning, adapters)
}


def get_config(arg: str) -> mlc.ConfigDict:
  """`arg` is one of `KINDS`."""
  c = mlc.ConfigDict()
  c.stage = arg
  c.data = dict(source="synthetic", image=dict(size=IMAGE))
  c.train = dict(num_steps=10, batch_size=BATCH)
  c.optimizer = dict(peak_lr=1e-3, warmup_steps=2)
  c.log = dict(tensorboard=False)
  c.model = dict(precision="float32")
  KINDS[arg](c)
  return c
