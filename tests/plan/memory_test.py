import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mmjax.plan import hlo, memory

# In the words of two versions of the compiler of TPUs.
MESSAGES = (
  "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required "
  "for HLO temporaries (33.09G) exceeds available HBM (15.75G).",
  "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in "
  "memory space hbm. Used 33.09G of 15.75G hbm. Exceeded hbm capacity by "
  "17.34G.",
)


def test_what_is_missing_is_read_from_the_compilers_error():
  for message in MESSAGES:
    found = memory.missing(message)

    assert found["wanted"] == 33.09 * 2**30
    assert found["available"] == 15.75 * 2**30


def test_errors_of_other_kinds_are_none_of_memory():
  assert memory.missing("INTERNAL: no such thing") is None
  assert math.isnan(memory.missing("RESOURCE_EXHAUSTED: vmem")["wanted"])


def test_bytes_of_a_chips_share():
  mesh = Mesh(
    np.asarray(jax.devices()[:4]), ("x",), axis_types=(AxisType.Auto,)
  )
  tree = [
    jax.ShapeDtypeStruct(
      (8, 3), jnp.float32, sharding=NamedSharding(mesh, P("x"))
    ),
    jax.ShapeDtypeStruct((5,), jnp.bfloat16),
    jax.eval_shape(lambda: jax.random.key(0)),  # Two words.
  ]

  assert memory.shard_bytes(tree) == 2 * 3 * 4 + 5 * 2 + 2 * 4


def test_what_layers_keep_for_the_backward_pass():
  layers, batch, width = 3, 32, 8

  def loss(kernels, x):
    def layer(x, kernel):
      return jnp.tanh(x @ kernel), None

    layer = jax.checkpoint(layer)  # Keeps its input alone.
    return jnp.sum(jax.lax.scan(layer, x, kernels)[0])

  params = jax.ShapeDtypeStruct(
    (layers, width, width),
    jnp.float32,
    sharding=NamedSharding(Mesh(np.asarray(jax.devices()[:1]), ("x",)), P()),
  )
  x = jax.ShapeDtypeStruct((batch, width), jnp.float32)
  text = jax.jit(jax.grad(loss)).lower(params, x).compile().as_text()

  kept = memory.kept_bytes(hlo.parse(text), params)

  assert kept == layers * batch * width * 4
