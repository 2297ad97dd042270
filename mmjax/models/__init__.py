"""Linen modules: what turns a batch into sequences, vectors, logits, codes.

No ConfigDict, no files, no mesh in here: kernels and activations carry the
logical axis names of `mmjax.core.axes`, and `mmjax.sharding` places them.

Start with `multimodal.py`; what is registered:
"""

from mmjax.models.decoders import DECODERS
from mmjax.models.encoders import ENCODERS
from mmjax.models.fusion import FUSIONS
from mmjax.models.heads import HEADS
from mmjax.models.visual_tokenizer import VISUAL_TOKENIZERS

__all__ = ["DECODERS", "ENCODERS", "FUSIONS", "HEADS", "VISUAL_TOKENIZERS"]
