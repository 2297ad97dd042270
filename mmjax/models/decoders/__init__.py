"""Decoders: what turns encoded inputs into a sequence to predict from.

Named in `config.model.decoders` by the field that they make, called by
`apply("decode", ...)` and `apply("restore", ...)`.
"""

from typing import Any

from mmjax.models.decoders.patches import patches
from mmjax.models.decoders.predictor import predictor
from mmjax.models.decoders.text import text

DECODERS: dict[str, Any] = {
  "patches": patches,
  "predictor": predictor,
  "text": text,
}
