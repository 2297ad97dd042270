"""Weights in and out: released models <-> parameters of ours.

Here live the formats (`tensors.py`) and a file for each family of models
(`families/`), which is two tables: the language is in `tables.py`, its words in
`vocabulary.py`, what several families say in `lines.py`. `configs.py` and
`mapping.py` are what tables become, `beside/` reads what no config.json says.
Of mmjax this room knows the names of parameters and of config
keys, and imports none of its models: `build` makes a workdir of what it says.
Start with `families/bert.py`.
"""

from mmjax.convert.families import (
  beit,
  bert,
  big_vision_vit,
  clip,
  dinov2,
  dinov2_with_registers,
  flava,
  gpt2,
  mae,
  open_clip,
  roberta,
  siglip,
  timm_vit,
  vilt,
  vit,
  whisper,
)
from mmjax.convert.family import Family

FAMILIES: dict[str, Family] = {
  "beit": beit.FAMILY,
  "bert": bert.FAMILY,
  "big_vision_vit": big_vision_vit.FAMILY,
  "clip": clip.FAMILY,
  "dinov2": dinov2.FAMILY,
  "dinov2_with_registers": dinov2_with_registers.FAMILY,
  "flava": flava.FAMILY,
  "gpt2": gpt2.FAMILY,
  "open_clip": open_clip.FAMILY,
  "roberta": roberta.FAMILY,
  "siglip": siglip.FAMILY,
  "timm_vit": timm_vit.FAMILY,
  "vilt": vilt.FAMILY,
  "vit": vit.FAMILY,
  "vit_mae": mae.FAMILY,
  "whisper": whisper.FAMILY,
}
