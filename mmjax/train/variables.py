"""Fresh variables: what the objectives of a run call gets parameters."""

from typing import Any

import jax
from flax import linen as nn

from mmjax.core import errors
from mmjax.objectives import multitask
from mmjax.objectives import weighting as weighting_lib
from mmjax.train.model_call import RNG_STREAMS
from mmjax.train.step import Batches


def initialize(
  model: nn.Module,
  objectives: multitask.Objectives,
  batches: Batches,
  rng: jax.Array,
  weighting: weighting_lib.Weighting = weighting_lib.CONSTANT,
) -> dict[str, Any]:
  """Variables of the model: what the objectives call gets parameters.

  A weighting that learns adds its own, under `loss_weights`.
  Kernels are boxed with their logical axes (`nn.meta.unbox` takes them out).
  """

  def run(module):
    def call(
      method: str, *args: Any, key: str, by: str = "model", **kwargs: Any
    ) -> Any:
      del key
      if by == "teacher":
        return module.teach(method, *args, **kwargs)
      return getattr(module, method)(*args, **kwargs)

    multitask.forward(objectives, call, batches, rng, train=True)
    _initialize_tokenizers(module, batches)

  keys = jax.random.split(rng, 1 + len(RNG_STREAMS))
  rngs = dict(zip(("params", *RNG_STREAMS), keys, strict=True))
  variables = dict(model.init(rngs, method=run))
  params, memory = weighting.init(weighting_lib.covered(weighting, objectives))
  if params:
    variables["params"] = {**variables["params"], weighting_lib.PART: params}
  return variables | ({weighting_lib.PART: memory} if memory else {})


def _initialize_tokenizers(module, batches):
  """Tokenizers' decoders too, although a pretraining step asks for codes."""
  visual = getattr(module, "visual_tokenizer", None)
  parts = dict(getattr(module, "tokenizers", None) or {})
  if visual is not None:
    parts[getattr(visual, "modality", "image")] = visual
  for modality, tokenizer in parts.items():
    if getattr(tokenizer, "learned", True):
      clips = getattr(tokenizer, "modality", "image") == "video"
      module.reconstruct(_pixels(batches, clips), train=True, modality=modality)


def _pixels(batches, clips):
  """Clips of any task; else pictures, the first of several, or frames."""
  for batch in batches.values():
    if "image" in batch and not clips:
      return batch["image"]
    if "images" in batch and not clips:
      return batch["images"][:, 0]
    if "video" in batch:
      return batch["video"] if clips else batch["video"][:, 0]
  raise errors.UserError(
    "The model has a visual tokenizer, but no task has "
    + ("clips." if clips else "pictures or clips.")
  )
