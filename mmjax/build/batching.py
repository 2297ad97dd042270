"""How many examples the batches of each task hold, and how long texts are."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from mmjax.build.settings import TrainSettings
from mmjax.core import errors
from mmjax.core.batch import FieldSpec
from mmjax.data import buckets, pipeline
from mmjax.sharding import mesh as mesh_lib

Shapes = dict[str, dict[str, jax.ShapeDtypeStruct]]


@dataclasses.dataclass(frozen=True)
class Batching:
  """The sizes of the batches of all tasks, for each bucket of texts.

  Without `data.buckets` there is one bucket; without `train.tokens_per_batch`
  all batches are of `train.batch_size`. Nothing of it depends on the machine:
  a run that goes on elsewhere finds the same batches.
  """

  sizes: Mapping[str, tuple[int, ...]]  # By task, of each bucket.
  pipelines: Mapping[str, pipeline.Pipeline]
  seed: int

  def examples(self, task: str, step: int) -> int:
    """How many examples the batches of a task before this one held."""
    found = self.pipelines[task].buckets
    if found is None:
      return step * self.sizes[task][0]
    return buckets.BucketOrder(
      found.counts, self.sizes[task], self.seed
    ).examples(step)

  def shapes(self, tasks: Mapping[str, int]) -> Shapes:
    """Shapes of the batches of a step; `tasks` has the bucket of each."""
    return {
      task: {
        name: jax.ShapeDtypeStruct(
          (self.sizes[task][bucket], *self._shape(task, name, spec, bucket)),
          spec.dtype,
        )
        for name, spec in self.pipelines[task].specs.items()
      }
      for task, bucket in tasks.items()
    }

  def bucket(self, task: str, batch: Mapping[str, Any]) -> int:
    """The bucket of a batch, as its texts tell."""
    found = self.pipelines[task].buckets
    return found.lengths.index(batch["text"].shape[1]) if found else 0

  def _shape(self, task: str, name: str, spec: FieldSpec, bucket: int) -> Any:
    found = self.pipelines[task].buckets
    width = found and found.width(name, spec, bucket)
    return (width, *spec.shape[1:]) if width else spec.shape


def make_batching(
  train: TrainSettings,
  pipelines: Mapping[str, pipeline.Pipeline],
  mesh: Mesh,
) -> Batching:
  """Sizes for all tasks, checked against the mesh.

  Raises:
    UserError: batches that don't divide over the devices, or a number of
      tokens for a task without texts, or too few.
  """
  sizes = {}
  for task, source in pipelines.items():
    lengths = source.buckets.lengths if source.buckets else ()
    if not train.tokens_per_batch:
      sizes[task] = (train.batch_size,) * max(1, len(lengths))
      continue
    if "text" not in source.specs:
      raise errors.UserError(
        f"train.tokens_per_batch={train.tokens_per_batch} counts tokens of "
        f"text, which the data of task {task!r} lack: leave it out."
      )
    lengths = lengths or source.specs["text"].shape
    sizes[task] = buckets.batch_sizes(
      lengths, train.tokens_per_batch, train.batch_multiple
    )
  if train.tokens_per_batch:
    ways = mesh_lib.batch_ways(mesh) * train.accumulate
    if train.batch_multiple % ways:
      raise errors.UserError(
        f"train.batch_multiple={train.batch_multiple} does not split over "
        f"{mesh_lib.batch_ways(mesh)} devices x train.accumulate="
        f"{train.accumulate}: set it to a multiple of {ways}."
      )
  return Batching(sizes, pipelines, train.seed)
