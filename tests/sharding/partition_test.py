import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from mmjax.core import axes, errors, trees
from mmjax.sharding import mesh as mesh_lib
from mmjax.sharding import partition, rules
from mmjax.sharding.mesh import MeshShape

FSDP = rules.rules("fsdp")


def boxed(shape, *names, dtype=jnp.float32):
  return nn.LogicallyPartitioned(jax.ShapeDtypeStruct(shape, dtype), names)


def make(**sizes):
  return mesh_lib.make_mesh(MeshShape(**sizes))


PARAMS = {
  "query": boxed((64, 4, 16), axes.EMBED, axes.HEADS, axes.HEAD_DIM),
  "hidden": boxed((64, 256), axes.EMBED, axes.MLP),
  "out": boxed((256, 64), axes.MLP, axes.EMBED),
  "expert": boxed((64, 256), axes.EMBED, axes.EXPERT_MLP),
  "norm": boxed((64,), axes.EMBED),
  "logits": boxed((64, 97), axes.EMBED, axes.VOCAB),  # 97 is prime.
  "positions": boxed((16, 64), axes.POSITION, axes.EMBED),
  "scale": jax.ShapeDtypeStruct((), jnp.float32),  # Not boxed.
}
# By hand, for meshes whose sizes divide everything but the 97.
EXPECTED = {
  "data_parallel": {
    "query": P(None, None, None),
    "hidden": P(None, None),
    "expert": P(None, None),
    "out": P(None, None),
    "norm": P(None),
    "logits": P(None, None),
    "positions": P(None, None),
    "scale": P(),
  },
  "fsdp": {
    "query": P("fsdp", None, None),
    "hidden": P("fsdp", None),
    "expert": P("fsdp", None),
    "out": P(None, "fsdp"),
    "norm": P("fsdp"),
    "logits": P("fsdp", None),
    "positions": P(None, "fsdp"),
    "scale": P(),
  },
  "fsdp_expert": {
    "query": P("fsdp", None, None),
    "hidden": P("fsdp", None),
    "expert": P("fsdp", "tensor"),
    "out": P(None, "fsdp"),
    "norm": P("fsdp"),
    "logits": P("fsdp", None),
    "positions": P(None, "fsdp"),
    "scale": P(),
  },
  "fsdp_tensor": {
    "query": P("fsdp", "tensor", None),
    "hidden": P("fsdp", "tensor"),
    "expert": P("fsdp", "tensor"),
    "out": P("tensor", "fsdp"),
    "norm": P("fsdp"),
    "logits": P("fsdp", None),
    "positions": P(None, "fsdp"),
    "scale": P(),
  },
}


@pytest.mark.parametrize("table", EXPECTED)
def test_specs_are_those_written_by_hand(table):
  mesh = make(data=2, fsdp=2, tensor=2)

  specs = partition.param_specs(PARAMS, mesh, rules.rules(table))

  assert specs == EXPECTED[table]


def test_mesh_axis_of_size_one_splits_nothing():
  specs = partition.param_specs(PARAMS, make(), rules.rules("fsdp_tensor"))

  assert all(part is None for spec in specs.values() for part in spec)


def test_heads_that_do_not_divide_are_refused():
  with pytest.raises(
    errors.UserError, match=r"4 heads of 'query'.*over 8.*\[1, 2, 4\]"
  ):
    partition.param_specs(
      PARAMS, make(data=1, tensor=8), rules.rules("fsdp_tensor")
    )


def test_axis_that_does_not_divide_stays_whole():
  params = {"kernel": boxed((30, 64), axes.EMBED, axes.MLP)}
  mesh = make(data=1, fsdp=4, tensor=2)

  specs = partition.param_specs(params, mesh, rules.rules("fsdp_tensor"))

  assert specs["kernel"] == P(None, "tensor")


def test_mesh_axis_is_used_once_in_an_array():
  params = {"kernel": boxed((64, 64), axes.EMBED, axes.EMBED)}

  specs = partition.param_specs(params, make(data=1, fsdp=8), FSDP)

  assert specs["kernel"] == P("fsdp", None)


def test_large_array_without_a_fitting_rule_is_split_along_its_largest_axis():
  # 3 x 1024 x 260 numbers are over 1 MiB; the embedding axis has 3 rows.
  params = {"odd": boxed((3, 1024, 260), axes.EMBED, axes.MLP, axes.HEADS)}

  specs = partition.param_specs(params, make(data=1, fsdp=8), FSDP)

  assert specs["odd"] == P(None, "fsdp", None)


def test_small_array_without_a_fitting_rule_stays_whole():
  params = {"odd": boxed((3, 1024), axes.EMBED, axes.MLP)}

  specs = partition.param_specs(params, make(data=1, fsdp=8), FSDP)

  assert specs["odd"] == P(None, None)


def test_large_array_stays_whole_where_the_table_has_no_fsdp():
  params = {"large": boxed((1024, 1024), axes.EMBED, axes.MLP)}
  mesh = make(data=1, fsdp=8)

  specs = partition.param_specs(params, mesh, rules.rules("data_parallel"))

  assert specs["large"] == P(None, None)


def test_moments_and_average_live_where_their_parameter_does():
  params = {
    "a": {"kernel": jnp.zeros((8, 4)), "bias": jnp.zeros(4)},
    "b": {"kernel": jnp.zeros((4, 8))},
  }
  specs = {
    "a/kernel": P("fsdp", None),
    "a/bias": P(None),
    "b/kernel": P(None, "fsdp"),
  }
  mesh = make(data=1, fsdp=8)
  optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))
  state = {
    "step": jnp.zeros((), jnp.int32),
    "params": params,
    "opt_state": optimizer.init(params),
    "ema": params,
    "collections": {"codebook": {"sums": jnp.zeros((8, 4))}},
  }

  placed = trees.flatten(partition.state_shardings(state, specs, mesh))

  got = {name: sharding.spec for name, sharding in placed.items()}
  adam = "opt_state/1/0"
  moments = {
    f"{adam}/{moment}/{name}": spec
    for moment in ("mu", "nu")
    for name, spec in specs.items()
  }
  assert got == {
    "step": P(),
    f"{adam}/count": P(),
    "collections/codebook/sums": P(),
    **moments,
    **{f"params/{name}": spec for name, spec in specs.items()},
    **{f"ema/{name}": spec for name, spec in specs.items()},
  }


@pytest.mark.parametrize(
  "put", [partition.put_batch, partition.put_global_batch]
)
def test_batch_has_its_values_and_each_device_its_rows(put):
  mesh = make(replica=2, data=2, fsdp=1, tensor=2)
  rows = np.arange(24, dtype=np.int32).reshape(8, 3)

  placed = put({"text": rows}, mesh)["text"]

  np.testing.assert_array_equal(np.asarray(placed), rows)
  parts = {s.device.id: np.asarray(s.data) for s in placed.addressable_shards}
  for (replica, data, _, tensor, _), device in np.ndenumerate(mesh.devices):
    del tensor  # Holds the same rows.
    start = 2 * (2 * replica + data)
    np.testing.assert_array_equal(parts[device.id], rows[start : start + 2])


def test_report_counts_bytes_in_all_and_on_a_device():
  mesh = make(data=1, fsdp=4, tensor=2)
  params = {
    "kernel": jax.ShapeDtypeStruct((8, 6), jnp.float32),
    "bias": jax.ShapeDtypeStruct((6,), jnp.bfloat16),
  }
  shardings = {
    "kernel": NamedSharding(mesh, P("fsdp", "tensor")),
    "bias": NamedSharding(mesh, P()),
  }

  rows = {row["name"]: row for row in partition.report(params, shardings)}

  assert rows["kernel"]["bytes"] == 8 * 6 * 4
  assert rows["kernel"]["bytes_per_device"] == 2 * 3 * 4
  assert rows["kernel"]["spec"] == ("fsdp", "tensor")
  assert rows["bias"]["bytes"] == rows["bias"]["bytes_per_device"] == 6 * 2
