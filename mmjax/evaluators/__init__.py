"""What is measured: frozen dataclasses, run between steps and afterwards.

An evaluator gets a `Predict`, which runs a function of the model on a host
batch, and says `(name, value)` pairs; some also make pictures for the report
(`artifacts.py` writes them). Start with `classification.py`. A user's own is
named `"package.module:Class"`.

Fields that no config sets are filled in by `mmjax.build.evaluators`:
`batches`, a function that starts a fresh pass over the evaluator's data;
`x_batches` where the config has `x_data`; `tokenizer`, `class_names`,
`objectives`, `chance`.
"""

from mmjax.evaluators.classification import Classification
from mmjax.evaluators.linear_probe import LinearProbe
from mmjax.evaluators.loss import Loss
from mmjax.evaluators.masked_prediction import MaskedPrediction
from mmjax.evaluators.nearest_picture import NearestPicture
from mmjax.evaluators.reconstruction import Reconstruction
from mmjax.evaluators.retrieval import Retrieval
from mmjax.evaluators.retrieval_baseline import RetrievalBaseline

EVALUATORS = {
  "classification": Classification,
  "linear_probe": LinearProbe,
  "loss": Loss,
  "masked_prediction": MaskedPrediction,
  "nearest_picture": NearestPicture,
  "reconstruction": Reconstruction,
  "retrieval": Retrieval,
  "retrieval_baseline": RetrievalBaseline,
}
