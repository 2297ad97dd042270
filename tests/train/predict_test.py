import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mmjax.core import axes
from mmjax.sharding import mesh as mesh_lib
from mmjax.sharding import rules
from mmjax.train import predict


class Model(nn.Module):
  """A matrix, dropout, and a counter that only training may change."""

  @nn.compact
  def double(self, x, train):
    kernel = self.param(
      "kernel",
      nn.with_logical_partitioning(
        nn.initializers.normal(), (axes.EMBED, axes.MLP)
      ),
      (4, 4),
    )
    x = nn.with_logical_constraint(x @ kernel, (axes.ACT_BATCH, axes.ACT_EMBED))
    return nn.Dropout(0.5)(2.0 * x, deterministic=not train)


TABLE = rules.rules("fsdp")


@pytest.fixture
def mesh():
  return mesh_lib.make_mesh(mesh_lib.MeshShape(data=4, fsdp=2))


def make(mesh, *fields):
  return predict.Predictor(Model(), mesh, TABLE, frozenset(fields))


@pytest.fixture
def variables(rng):
  return {"params": {"kernel": rng.normal(size=(4, 4)).astype(np.float32)}}


def double(apply, batch):
  return apply("double", batch["x"], False)


def test_result_is_that_of_the_global_batch_without_dropout(
  mesh, variables, rng
):
  x = rng.normal(size=(8, 4)).astype(np.float32)

  got = make(mesh, "x")(variables, double, {"x": x})

  assert type(got) is np.ndarray
  expected = 2 * x.astype(np.float64) @ variables["params"]["kernel"]
  np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


def test_fields_that_no_objective_reads_stay_on_the_host(mesh, variables):
  batch = {
    "x": np.ones((8, 4), np.float32),
    "concept": np.array(["text"] * 8, object),
    "example_mask": np.ones(8, bool),
  }
  seen = []

  def look(apply, batch):
    seen.extend(sorted(batch))
    return batch["x"]

  make(mesh, "x")(variables, look, batch)

  assert seen == ["example_mask", "x"]


def test_the_same_function_is_traced_once(mesh, variables):
  predictor, traces = make(mesh, "x"), []

  def look(apply, batch):
    traces.append(1)
    return double(apply, batch)

  for i in range(3):
    predictor(variables, look, {"x": np.full((8, 4), i, np.float32)})

  assert len(traces) == 1


def test_an_evaluators_method_is_the_same_function_each_time(mesh, variables):
  class Evaluator:
    traces = 0

    def look(self, apply, batch):
      Evaluator.traces += 1
      return batch["x"]

  predictor, evaluator = make(mesh, "x"), Evaluator()
  for _ in range(2):
    predictor(variables, evaluator.look, {"x": np.ones((8, 4), np.float32)})

  assert Evaluator.traces == 1


def test_trees_of_results_come_back_whole(mesh, variables):
  x = np.arange(32, dtype=np.float32).reshape(8, 4)

  got = make(mesh, "x")(
    variables, lambda apply, batch: {"a": [batch["x"], 3.0]}, {"x": x}
  )

  np.testing.assert_array_equal(got["a"][0], x)
  assert got["a"][1] == 3.0


def constraints(context):
  """Number of sharding constraints that tracing the model leaves."""
  model, x = Model(), jnp.ones((8, 4))
  with context:
    jaxpr = jax.make_jaxpr(
      lambda p, x: model.apply({"params": p}, x, False, method="double")
    )({"kernel": jnp.ones((4, 4))}, x)
  return str(jaxpr).count("sharding_constraint")


def test_names_become_shardings_in_the_placement_only(mesh):
  assert constraints(predict.placement(mesh, TABLE)) == 1
  # Why `placement` is needed: without, Linen says nothing and does nothing.
  assert constraints(nn.logical_axis_rules(TABLE)) == 0
