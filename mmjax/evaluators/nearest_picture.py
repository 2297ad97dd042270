"""Nearest-neighbour recognition: which concept does an unseen picture show?"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from mmjax.core.interfaces import Predict
from mmjax.evaluators import features, ranking


@dataclasses.dataclass(frozen=True, kw_only=True)
class NearestPicture:
  """R@k of the concept of a picture among the concepts of a gallery.

  A concept scores as high as its most similar gallery picture, by cosine.
  `pixels/R@k` is the same with `pixels` x `pixels` RGB thumbnails, centred
  per group, in place of the model: what a model has to beat. `centred/R@k`
  takes the groups' means off the model's features too.
  """

  batches: Callable[[], Iterator[dict[str, np.ndarray]]]
  gallery_batches: Callable[[], Iterator[dict[str, np.ndarray]]]
  modality: str = "image"
  key: str = "concept"  # Text field of the source that says what is shown.
  group: str = "artist"  # Text field; its means are taken off thumbnails.
  features: str = "shared"  # Or "pooled": before the projection.
  pixels: int = 16  # Side of the thumbnails.
  at: tuple[int, ...] = (1, 5, 10)

  def __post_init__(self):
    features.check_kind(self.features)

  def reads(self):
    fields = (self.modality, self.key, self.group)
    return {"batches": fields, "gallery_batches": fields}

  def run(self, predict: Predict, params: Any) -> Iterator[tuple[str, float]]:
    queries = self._collect(self.batches, predict, params)
    gallery = self._collect(self.gallery_batches, predict, params)
    # The concepts of the queries only: others are nobody's answer.
    known = np.isin(gallery["keys"], queries["keys"])
    gallery = {name: values[known] for name, values in gallery.items()}
    for prefix, name in (
      ("", "features"),
      ("centred/", "centred"),
      ("pixels/", "thumbnails"),
    ):
      rank = _concept_ranks(
        queries[name], gallery[name], queries["keys"], gallery["keys"]
      )
      for recall, value in ranking.recalls(rank, self.at).items():
        yield prefix + recall, value

  def _collect(self, batches, predict, params) -> dict[str, np.ndarray]:
    columns: dict[str, list[np.ndarray]] = {}
    for batch in batches():
      real = batch["example_mask"]
      rows = {
        "features": predict(params, self._encode, batch),
        "thumbnails": thumbnails(batch[self.modality], self.pixels),
        "keys": batch[self.key],
        "groups": batch[self.group],
      }
      for name, values in rows.items():
        columns.setdefault(name, []).append(values[real])
    out = {name: np.concatenate(parts) for name, parts in columns.items()}
    out["centred"] = _unit(_centred(_unit(out["features"]), out["groups"]))
    out["features"] = _unit(out["features"])
    out["thumbnails"] = _unit(_centred(out["thumbnails"], out["groups"]))
    return out

  def _encode(self, apply, batch):
    del batch
    return apply(features.METHODS[self.features], self.modality)


def thumbnails(
  images: UInt8[np.ndarray, "b h w c"], size: int
) -> Float[np.ndarray, "b q"]:
  """Scales pictures to `size` x `size`, with antialiasing, and flattens."""
  small = [
    np.asarray(
      Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR)
    )
    for image in images
  ]
  return np.stack(small).astype(np.float32).reshape(len(images), -1)


def _centred(values, groups):
  out = np.empty_like(values)
  for group in np.unique(groups):
    rows = groups == group
    out[rows] = values[rows] - values[rows].mean(axis=0)
  return out


def _unit(x):
  return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def _concept_ranks(queries, gallery, query_keys, gallery_keys):
  """Rank of the right concept, a concept scoring as its best picture."""
  names, which = np.unique(gallery_keys, return_inverse=True)
  position: Mapping[Any, int] = {name: i for i, name in enumerate(names)}
  own = np.array([position[key] for key in query_keys])
  found = []
  for start in range(0, len(queries), ranking.CHUNK):
    part = slice(start, start + ranking.CHUNK)
    scores = queries[part] @ gallery.T  # q g
    best = np.full((len(scores), len(names)), -np.inf)
    for row, concept in zip(scores.T, which, strict=True):
      best[:, concept] = np.maximum(best[:, concept], row)
    right = np.take_along_axis(best, own[part, None], axis=1)
    found.append((best >= right).sum(axis=1) - 1)
  return np.concatenate(found)
