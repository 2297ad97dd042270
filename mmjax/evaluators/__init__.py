"""What is measured: frozen dataclasses, run between steps and afterwards.

An evaluator gets a `Predict`, which runs a function of the model on a host
batch, and says `(name, value)` pairs; some also make pictures for the report
(`artifacts.py` writes them). Start with `classification.py`; what is no more
than arithmetic lies in `scores/`. A user's own is named
`"package.module:Class"`.

Fields that no config sets are filled in by `mmjax.build.evaluators`:
`batches`, a function that starts a fresh pass over the evaluator's data;
`x_batches` where the config has `x_data`; `tokenizer`, `class_names`,
`num_classes`, `objectives`, `chance`, `generate`. With `reads()`, fields of
the batch by the name of the pass, data that lack one are refused before the
run starts.
"""

from mmjax.evaluators.captioning import Captioning
from mmjax.evaluators.classification import Classification
from mmjax.evaluators.few_shot import FewShot
from mmjax.evaluators.knn import Knn
from mmjax.evaluators.linear_probe import LinearProbe
from mmjax.evaluators.loss import Loss
from mmjax.evaluators.masked_prediction import MaskedPrediction
from mmjax.evaluators.nearest_picture import NearestPicture
from mmjax.evaluators.perplexity import Perplexity
from mmjax.evaluators.reconstruction import Reconstruction
from mmjax.evaluators.retrieval import Retrieval
from mmjax.evaluators.retrieval_baseline import RetrievalBaseline
from mmjax.evaluators.vqa import Vqa, VqaGenerated
from mmjax.evaluators.zero_shot import ZeroShot

EVALUATORS = {
  "captioning": Captioning,
  "classification": Classification,
  "few_shot": FewShot,
  "knn": Knn,
  "linear_probe": LinearProbe,
  "loss": Loss,
  "masked_prediction": MaskedPrediction,
  "nearest_picture": NearestPicture,
  "perplexity": Perplexity,
  "reconstruction": Reconstruction,
  "retrieval": Retrieval,
  "retrieval_baseline": RetrievalBaseline,
  "vqa": Vqa,
  "vqa_generated": VqaGenerated,
  "zero_shot": ZeroShot,
}
