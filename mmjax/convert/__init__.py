"""Weights in and out: released models <-> parameters of ours.

Here live the formats (`tensors.py`), the language of rules (`mapping.py`) and
a file for each family of models (`families/`). Of mmjax this room knows the
names of parameters and of config keys, and imports none of its models: `build`
makes a workdir of what it says. Start with `families/bert.py`.
"""

from mmjax.convert.families import (
  beit,
  bert,
  big_vision_vit,
  clip,
  dinov2,
  flava,
  gpt2,
  mae,
  open_clip,
  siglip,
  timm_vit,
  vilt,
  vit,
  whisper,
)
from mmjax.convert.family import Family

FAMILIES: dict[str, Family] = {
  "beit": beit.FAMILY,
  "bert": bert.BERT,
  "big_vision_vit": big_vision_vit.FAMILY,
  "clip": clip.FAMILY,
  "dinov2": dinov2.DINOV2,
  "dinov2_with_registers": dinov2.WITH_REGISTERS,
  "flava": flava.FAMILY,
  "gpt2": gpt2.FAMILY,
  "open_clip": open_clip.FAMILY,
  "roberta": bert.ROBERTA,
  "siglip": siglip.FAMILY,
  "timm_vit": timm_vit.FAMILY,
  "vilt": vilt.FAMILY,
  "vit": vit.FAMILY,
  "vit_mae": mae.FAMILY,
  "whisper": whisper.FAMILY,
}
