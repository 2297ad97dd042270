"""What to learn: frozen dataclasses called inside the jitted step.

Objectives call the model by method name and import no model; a user's own is
named `"package.module:Class"`. Start with `masked_lm.py`; the arithmetic is in
`losses.py`, the shared forward pass in `forward_once.py`.
"""

from mmjax.objectives.classification import Classification
from mmjax.objectives.contrastive import Contrastive
from mmjax.objectives.masked_lm import MaskedLM
from mmjax.objectives.tokenizer_training import TokenizerTraining
from mmjax.objectives.vision_token_prediction import VisionTokenPrediction

OBJECTIVES = {
  "classification": Classification,
  "contrastive": Contrastive,
  "masked_lm": MaskedLM,
  "tokenizer_training": TokenizerTraining,
  "vision_token_prediction": VisionTokenPrediction,
}
