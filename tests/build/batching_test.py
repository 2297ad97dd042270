import signal

import ml_collections as mlc
import numpy as np
import pytest

from mmjax.build import batching, experiment, settings, training
from mmjax.core import errors, trees
from mmjax.data import loader
from mmjax.data.pipeline import build_pipeline
from mmjax.sharding import mesh as mesh_lib
from mmjax.train.checkpoint import Checkpointer

SIZE = dict(embed_dim=16, num_layers=1, num_heads=2, mlp_dim=24)
TEXT = dict(max_tokens=24, mask=dict(rate=0.3))
DATA = dict(source="synthetic", split="test", text=TEXT)


@pytest.fixture(scope="module")
def bucketed():
  return build_pipeline(dict(DATA, buckets=(14, 16, 24)))


@pytest.fixture(scope="module")
def mesh():
  return mesh_lib.make_mesh(mesh_lib.MeshShape(replica=2, data=4))


def _make(pipelines, mesh, **train):
  return batching.make_batching(
    settings.TrainSettings(**train), pipelines, mesh
  )


def test_a_step_has_as_many_texts_as_its_tokens_are_enough_for(bucketed, mesh):
  made = _make({"a": bucketed}, mesh, tokens_per_batch=400, seed=3)
  assert made.sizes == {"a": (24, 24, 16)}  # 400 // 14 = 28, // 24 = 16.
  batches = loader.train_batches(
    bucketed, batch_size=made.sizes["a"], seed=3, num_threads=0
  )
  seen, found = 0, set()
  for step in range(12):
    assert made.examples("a", step) == seen
    batch = next(batches)
    bucket = made.bucket("a", batch)
    found.add(bucket)
    shapes = made.shapes({"a": bucket})["a"]
    assert {n: x.shape for n, x in shapes.items()} == {
      n: x.shape for n, x in batch.items()
    }
    assert batch["text"].size <= 400
    seen += len(batch["text"])
  assert found == {0, 1, 2}


def test_without_a_budget_batches_are_of_one_size(bucketed, mesh):
  plain = build_pipeline(DATA)
  made = _make({"a": bucketed, "b": plain}, mesh, batch_size=16)
  assert made.sizes == {"a": (16, 16, 16), "b": (16,)}
  assert made.examples("a", 7) == made.examples("b", 7) == 7 * 16
  assert made.shapes({"b": 0})["b"]["text"].shape == (16, 24)
  made = _make({"b": plain}, mesh, tokens_per_batch=24 * 17)
  assert made.sizes == {"b": (16,)}


@pytest.mark.parametrize(
  ("data", "train", "message"),
  [
    (DATA, dict(tokens_per_batch=100), "at least 192"),
    (
      DATA,
      dict(tokens_per_batch=900, batch_multiple=6),
      "batch_multiple=6 does not split over 8 devices",
    ),
    (
      dict(DATA, text=None, image=dict(size=8)),
      dict(tokens_per_batch=900),
      "data of task 'a' lack",
    ),
  ],
)
def test_budgets_that_do_not_fit_are_refused(data, train, message, mesh):
  with pytest.raises(errors.UserError, match=message):
    _make({"a": build_pipeline(data)}, mesh, **train)


@pytest.mark.parametrize("name", ["tokens_per_batch", "batch_multiple"])
def test_numbers_below_their_least_are_refused(name):
  with pytest.raises(errors.UserError, match=f"{name}=-1, expected"):
    settings.TrainSettings(**{name: -1})


def _config():
  c = mlc.ConfigDict()
  c.data = dict(DATA, buckets=(16, 24))
  c.model = dict(
    encoders=dict(text=dict(name="text", size=SIZE)), precision="float32"
  )
  mlm = dict(name="masked_lm", given=())
  c.tasks = dict(main=dict(objectives=dict(mlm=mlm)))
  c.train = dict(num_steps=6, tokens_per_batch=400)
  c.log = dict(every_steps=1, tensorboard=False)
  return c


class Stopped(training.Listener):
  def on_step(self, step):
    if step == 3:
      signal.raise_signal(signal.SIGTERM)


def _end(config, workdir):
  made = experiment.prepare(config)
  checkpointer = Checkpointer(workdir / "checkpoints")
  step, state, meta = checkpointer.restore(made.abstract_state)
  checkpointer.close()
  assert step == 6
  return {
    n: np.asarray(x) for n, x in trees.flatten(state.params).items()
  }, meta


@pytest.mark.slow
def test_a_run_in_buckets_goes_on_where_it_was_stopped(tmp_path):
  config = settings.resolve(_config())
  training.Run(config, tmp_path / "whole").execute()
  half = training.Run(config, tmp_path / "twice", Stopped()).execute()
  assert not half.finished and 3 <= half.step < 6
  training.Run(config, tmp_path / "twice").execute()
  whole, meta = _end(config, tmp_path / "whole")
  twice, _ = _end(config, tmp_path / "twice")
  for name, value in whole.items():
    np.testing.assert_array_equal(twice[name], value)
  counted = meta["data"]["main"]
  assert counted["examples"] % 8 == 0 and 96 <= counted["examples"] <= 144
  assert [n for n, _ in counted["fingerprint"]["buckets"]] == [16, 24]
