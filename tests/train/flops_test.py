import jax
import jax.numpy as jnp
import optax
import pytest
from flax import linen as nn

from mmjax.core import precision
from mmjax.models import encoders
from mmjax.train import flops

A = jax.ShapeDtypeStruct((5, 7), jnp.float32)
B = jax.ShapeDtypeStruct((7, 3), jnp.float32)
SQUARE = jax.ShapeDtypeStruct((6, 6), jnp.float32)
PRODUCT = 2 * 6**3  # Of two such squares.


def test_matrix_product_counts_two_per_multiply_add():
  assert flops.count_flops(jnp.matmul, A, B) == 2 * 5 * 7 * 3


def test_product_of_batches_counts_each_of_them():
  a = jax.ShapeDtypeStruct((4, 2, 5, 7), jnp.float32)
  b = jax.ShapeDtypeStruct((4, 7, 3), jnp.float32)

  got = flops.count_flops(lambda a, b: jnp.einsum("bhij,bjk->bhik", a, b), a, b)

  assert got == 2 * (4 * 2) * 5 * 7 * 3


def test_product_over_two_axes_counts_both():
  a = jax.ShapeDtypeStruct((2, 3, 4), jnp.float32)
  b = jax.ShapeDtypeStruct((3, 4, 5), jnp.float32)

  got = flops.count_flops(lambda a, b: jnp.einsum("bkd,kde->be", a, b), a, b)

  assert got == 2 * 2 * (3 * 4) * 5


def test_gradient_of_a_product_costs_two_more():
  def loss(a, b):
    return jnp.sum((a @ b) ** 2)

  got = flops.count_flops(jax.grad(loss, argnums=(0, 1)), A, B)

  assert got == 3 * 2 * 5 * 7 * 3


@pytest.mark.parametrize("groups", [1, 2])
def test_convolution_counts_its_window_for_each_output(groups):
  # SAME padding and stride 2: 4 x 4 outputs of 8 x 8 pixels.
  x = jax.ShapeDtypeStruct((2, 8, 8, 4), jnp.float32)
  kernel = jax.ShapeDtypeStruct((3, 5, 4 // groups, 6), jnp.float32)

  def convolve(x, kernel):
    return jax.lax.conv_general_dilated(
      x,
      kernel,
      (2, 2),
      "SAME",
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
      feature_group_count=groups,
    )

  got = flops.count_flops(convolve, x, kernel)

  assert got == 2 * (2 * 4 * 4 * 6) * (3 * 5 * 4 // groups)


def test_scan_counts_its_body_as_often_as_it_runs():
  def fn(x):
    return jax.lax.scan(lambda c, _: (c @ c, None), x, None, length=11)[0]

  assert flops.count_flops(fn, SQUARE) == 11 * PRODUCT


def test_scan_in_a_scan_multiplies():
  def inner(x):
    return jax.lax.scan(lambda c, _: (c @ c, None), x, None, length=3)[0]

  def fn(x):
    return jax.lax.scan(lambda c, _: (inner(c), None), x, None, length=5)[0]

  assert flops.count_flops(fn, SQUARE) == 15 * PRODUCT


def test_cond_counts_its_dearest_branch():
  def fn(x):
    return jax.lax.cond(x[0, 0] > 0, lambda x: x @ x @ x, lambda x: x @ x, x)

  assert flops.count_flops(fn, SQUARE) == 2 * PRODUCT


def test_calls_of_jit_and_remat_are_looked_into():
  fn = jax.jit(jax.checkpoint(lambda x: x @ x))

  assert flops.count_flops(fn, SQUARE) == PRODUCT


@jax.custom_vjp
def _twice(x):
  return x @ x @ x


def _twice_forward(x):
  return _twice(x), x


def _twice_backward(x, g):
  return (g @ x,)


_twice.defvjp(_twice_forward, _twice_backward)


def test_rule_for_a_derivative_counts_where_it_is_used_only():
  def loss(x):
    return jnp.sum(_twice(x))

  assert flops.count_flops(loss, SQUARE) == 2 * PRODUCT
  assert flops.count_flops(jax.grad(loss), SQUARE) == 3 * PRODUCT


def test_elementwise_work_is_free():
  assert flops.count_flops(lambda x: nn.softmax(jnp.tanh(x) * 2), SQUARE) == 0


SIZE = dict(embed_dim=128, num_layers=2, num_heads=2, mlp_dim=512)


def _vit(scan):
  return encoders.vit(
    image_size=64,
    patch_size=8,
    size=SIZE,
    stack=dict(scan=scan),
    precision=precision.FLOAT32,
  )


def _step(scan):
  """One step of SGD, and its abstract arguments."""
  module = _vit(scan)
  image = jax.ShapeDtypeStruct((4, 64, 64, 3), jnp.uint8)
  params = nn.meta.unbox(
    jax.eval_shape(
      lambda x: module.init(jax.random.key(0), x, train=False), image
    )
  )["params"]
  optimizer = optax.sgd(0.1)

  def step(params, image):
    def loss(params):
      out = module.apply({"params": params}, image, train=True)
      return jnp.mean(out.x**2)

    grads = jax.grad(loss)(params)
    updates, _ = optimizer.update(grads, optimizer.init(params))
    return optax.apply_updates(params, updates)

  return step, params, image


def _by_formula():
  """Forward and twice as much backward, but no gradient of the pixels."""
  b, n, d, layers = 4, 64, SIZE["embed_dim"], SIZE["num_layers"]
  patches = 2 * b * n * (8 * 8 * 3) * d
  projections = 2 * b * n * d * (4 * d + 2 * SIZE["mlp_dim"])
  attention = 2 * 2 * b * n * n * d
  return 3 * layers * (projections + attention) + 2 * patches


@pytest.mark.parametrize("scan", [False, True])
def test_step_of_a_vit_costs_what_the_formula_says(scan):
  assert flops.count_flops(*_step(scan)) == _by_formula()


@pytest.mark.slow
def test_step_of_an_unrolled_vit_costs_what_the_compiler_says():
  step, *args = _step(scan=False)
  analysis = jax.jit(step).lower(*args).compile().cost_analysis()

  # The compiler counts softmax, GELU and norms besides: a few percent here.
  ratio = analysis["flops"] / flops.count_flops(step, *args)
  assert 1.0 <= ratio < 1.05


def test_products_are_told_by_the_names_around_them():
  @jax.named_scope("inner")
  def inner(x):
    return x @ x

  def fn(x):
    with jax.named_scope("outer"):
      x, _ = jax.lax.scan(lambda c, _: (inner(c), None), x, None, length=3)
      x = inner(inner(x))
    return x @ x

  found = flops.flops_by_scope(fn, SQUARE)

  by_names = {}
  for scope, count in found.items():
    names = tuple(n for n in ("outer", "inner") if n in scope)
    by_names[names] = by_names.get(names, 0) + count
  assert by_names == {("outer", "inner"): 5 * PRODUCT, (): PRODUCT}
