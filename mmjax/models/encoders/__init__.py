"""Encoders: one field of the batch -> `Sequence`.

All are the `Encoder` of `encoder.py` with a stem of their own.
"""

from mmjax.models.encoders.text import text
from mmjax.models.encoders.vit import vit

ENCODERS = {
  "text": text,
  "vit": vit,
}
