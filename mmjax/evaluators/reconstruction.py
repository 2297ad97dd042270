"""The health of a visual tokenizer on held-out pictures."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np

from mmjax.core import errors
from mmjax.core.interfaces import Artifact, Predict
from mmjax.evaluators import samples


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reconstruction:
  """Error of reconstructions, and how evenly the codes are used.

  `usage` is the share of codes that the whole split uses, `perplexity` e to
  the entropy of their frequencies: the number of codes that would be as
  informative if used evenly. `psnr` is in dB, of pixels in 0..1.
  """

  batches: Callable[[], Iterator[dict[str, np.ndarray]]]
  image: str = "image"  # Field.
  num_shown: int = 8  # Pictures in the report.

  def reads(self):
    return {"batches": (self.image,)}

  def run(self, predict: Predict, params: Any) -> Iterator[tuple[str, float]]:
    squared, counts = self._collect(predict, params)
    mean = float(np.mean(squared))
    yield "mean_squared_error", mean
    yield "psnr", -10.0 * float(np.log10(mean))
    yield "usage", float(np.mean(counts > 0))
    probs = counts[counts > 0] / counts.sum()
    yield "perplexity", float(np.exp(-np.sum(probs * np.log(probs))))

  def pictures(self, predict: Predict, params: Any) -> Iterator[Artifact]:
    batch, count = samples.spread(self.batches(), self.num_shown)
    image, _, _ = predict(params, self._reconstruct, batch)
    shown = np.clip(image[:count] * 255.0 + 0.5, 0, 255).astype(np.uint8)
    original = batch[self.image][:count]
    if shown.ndim == 5:  # Of clips, the frame in the middle.
      middle = shown.shape[1] // 2
      original, shown = original[:, middle], shown[:, middle]
    yield Artifact(
      "pairs",
      "pairs",
      "Reconstructions",
      {
        "columns": ["original", "reconstruction"],
        "images": np.stack([original, shown], axis=1),
      },
      "Held-out pictures, and what the visual tokenizer makes of their codes.",
    )
    _, counts = self._collect(predict, params)
    order = np.argsort(-counts, kind="stable")
    yield Artifact(
      "codebook",
      "bars",
      "Codebook usage",
      {"names": [str(i) for i in order], "values": counts[order]},
      "How often the held-out pictures use each code, most frequent first; a "
      "code of height 0 is dead.",
    )

  def _collect(self, predict, params):
    squared, counts = [], 0
    for batch in self.batches():
      real = batch["example_mask"]
      _, error, uses = predict(params, self._reconstruct, batch)
      squared.append(error[real])
      counts = counts + uses[real].sum(axis=0)
    return np.concatenate(squared), counts

  def _reconstruct(self, apply, batch):
    result = apply("reconstruct", self.image)
    if result.image is None:
      raise errors.UserError(
        "The evaluator 'reconstruction' needs a visual tokenizer that decodes "
        "to pixels; for one that decodes to features use 'loss'."
      )
    pixels = batch[self.image].astype(jnp.float32) / 255.0
    axes = tuple(range(1, pixels.ndim))
    error = jnp.mean((result.image - pixels) ** 2, axis=axes)  # b
    b = result.codes.shape[0]
    num_codes = apply("codebook_size", self.image)
    uses = jnp.zeros((b, num_codes), jnp.int32)
    uses = uses.at[jnp.arange(b)[:, None], result.codes].add(1)  # b k
    return result.image, error, uses
