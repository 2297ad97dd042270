"""Tokenizers: picture, clip or recording -> grid of discrete codes.

`tokenizer.py` is encoder and decoder around a quantiser: `codebook.py` (codes
that follow the data) or `fsq.py` (levels). Its decoder makes pixels, or with
`vq_kd.py` a teacher's features. `random_projection.py` needs no training.

One of your own is a Linen module with `codes(inputs, mask=None)`, in the order
of the encoder's tokens, `num_codes`, and, if it is to be trained,
`__call__(inputs, train=) -> Reconstruction`, `learned = True` and `modality`.
"""

from mmjax.models.visual_tokenizer.fsq import fsq
from mmjax.models.visual_tokenizer.random_projection import random_projection
from mmjax.models.visual_tokenizer.tokenizer import vq
from mmjax.models.visual_tokenizer.vq_kd import vq_kd

VISUAL_TOKENIZERS = {
  "fsq": fsq,
  "random_projection": random_projection,
  "vq": vq,
  "vq_kd": vq_kd,
}
