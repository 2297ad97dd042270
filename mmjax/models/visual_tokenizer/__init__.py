"""Visual tokenizers: picture -> grid of discrete codes -> picture.

`tokenizer.py` is the encoder and decoder, `codebook.py` the quantiser between.
"""

from mmjax.models.visual_tokenizer.tokenizer import vq

VISUAL_TOKENIZERS = {
  "vq": vq,
}
