"""Fusion: `{modality: Sequence}` -> `{modality: Sequence}`, any subset.

All begin with `inputs.py`. A modality that an example lacks (none of its
tokens counts) is, for this example, as if the batch had lacked it.
"""

from mmjax.models.fusion.bottleneck import bottleneck
from mmjax.models.fusion.cross_attention import cross_attention
from mmjax.models.fusion.film import film
from mmjax.models.fusion.joint import joint
from mmjax.models.fusion.resampler import resampler

FUSIONS = {
  "bottleneck": bottleneck,
  "cross_attention": cross_attention,
  "film": film,
  "joint": joint,
  "resampler": resampler,
}
