"""Fusion: `{modality: Sequence}` -> `{modality: Sequence}`, any subset."""

from mmjax.models.fusion.joint import joint

FUSIONS = {
  "joint": joint,
}
