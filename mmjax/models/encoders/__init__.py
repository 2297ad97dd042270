"""Encoders: one field of the batch -> `Sequence`.

All are the `Encoder` of `encoder.py` with a stem of their own.
"""

from mmjax.models.encoders.audio import audio
from mmjax.models.encoders.hybrid import hybrid
from mmjax.models.encoders.text import text
from mmjax.models.encoders.video import video
from mmjax.models.encoders.vit import vit

ENCODERS = {
  "audio": audio,
  "hybrid": hybrid,
  "text": text,
  "video": video,
  "vit": vit,
}
