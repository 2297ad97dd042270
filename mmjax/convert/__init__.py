"""Weights in and out: released models <-> parameters of ours.

Here live the formats (`tensors.py`), the language of rules (`mapping.py`) and
a file for each family of models (`families/`). Of mmjax this room knows the
names of parameters and of config keys, and imports none of its models: `build`
makes a workdir of what it says. Start with `families/bert.py`.
"""

from mmjax.convert.families import (
  bert,
  big_vision_vit,
  gpt2,
  timm_vit,
  vit,
  whisper,
)
from mmjax.convert.family import Family

FAMILIES: dict[str, Family] = {
  "bert": bert.BERT,
  "big_vision_vit": big_vision_vit.FAMILY,
  "gpt2": gpt2.FAMILY,
  "roberta": bert.ROBERTA,
  "timm_vit": timm_vit.FAMILY,
  "vit": vit.FAMILY,
  "whisper": whisper.FAMILY,
}
