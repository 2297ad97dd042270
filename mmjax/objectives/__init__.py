"""What to learn: frozen dataclasses called inside the jitted step.

Objectives call the model by method name and import no model; a user's own is
named `"package.module:Class"`. Start with `masked_lm.py`; the arithmetic is in
`losses.py`, the shared forward pass in `forward_once.py`.
"""

from mmjax.objectives.captioning import Captioning
from mmjax.objectives.causal_lm import CausalLM
from mmjax.objectives.classification import Classification
from mmjax.objectives.contrastive import Contrastive
from mmjax.objectives.conversation import Conversation
from mmjax.objectives.distillation import Distillation
from mmjax.objectives.features import Features
from mmjax.objectives.masked_feature_prediction import MaskedFeaturePrediction
from mmjax.objectives.masked_lm import MaskedLM
from mmjax.objectives.masked_pixel_regression import MaskedPixelRegression
from mmjax.objectives.matching import Matching
from mmjax.objectives.prefix_lm import PrefixLM
from mmjax.objectives.tokenizer_distillation import TokenizerDistillation
from mmjax.objectives.tokenizer_training import TokenizerTraining
from mmjax.objectives.vision_token_prediction import VisionTokenPrediction
from mmjax.objectives.vqa import vqa
from mmjax.objectives.weighting import Constant, GradNorm, Uncertainty

OBJECTIVES = {
  "captioning": Captioning,
  "causal_lm": CausalLM,
  "classification": Classification,
  "contrastive": Contrastive,
  "conversation": Conversation,
  "distillation": Distillation,
  "features": Features,
  "masked_feature_prediction": MaskedFeaturePrediction,
  "masked_lm": MaskedLM,
  "masked_pixel_regression": MaskedPixelRegression,
  "matching": Matching,
  "prefix_lm": PrefixLM,
  "tokenizer_distillation": TokenizerDistillation,
  "tokenizer_training": TokenizerTraining,
  "vision_token_prediction": VisionTokenPrediction,
  "vqa": vqa,
}
# How much each counts: `config.weighting`.
WEIGHTINGS = {
  "constant": Constant,
  "grad_norm": GradNorm,
  "uncertainty": Uncertainty,
}
