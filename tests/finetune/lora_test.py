import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import PartitionSpec as P

from mmjax.core import axes, errors, trees
from mmjax.finetune import lora as lora_lib
from mmjax.finetune.lora import Adapter, Lora
from mmjax.models.layers.options import StackOptions
from mmjax.models.layers.projection import Projection
from mmjax.models.layers.transformer import Stack
from mmjax.sharding import mesh, partition, rules

BATCH, TOKENS, DIM, HEADS = 2, 3, 8, 2
LORA = Lora(rank=2, alpha=3.0, targets=(".*/attention/.*", ".*/hidden"))


class Tower(nn.Module):
  """A stack as its callers have it."""

  scan: bool

  @nn.compact
  def __call__(self, x, mask):
    options = StackOptions(scan=self.scan, remat="full")
    tower = Stack(2, HEADS, 12, options, name="stack")
    return tower(x, mask=mask, train=False)


def inputs(rng):
  x = rng.normal(size=(BATCH, TOKENS, DIM)).astype(np.float32)
  return jnp.asarray(x), jnp.ones((BATCH, 1, TOKENS), bool)


def adapted(lora=LORA, excluded=()):
  return nn.intercept_methods(Adapter(lora, Projection, excluded))


def init(model, *args):
  """Parameters, compiled as a whole: it is faster."""

  def run(*args):
    return model.init(jax.random.key(0), *args)["params"]

  return jax.jit(run)(*map(jnp.asarray, args))


def apply(model, params, *args, rngs=None):
  args = [jnp.asarray(x) for x in args]
  run = jax.jit(lambda p: model.apply({"params": p}, *args, rngs=rngs))
  return np.asarray(run(params))


def moved(params, rng):
  """B away from zero, where it starts."""
  return trees.map_names(
    lambda n, x: (
      x + rng.normal(size=x.shape).astype(np.float32)
      if n.endswith("lora_b")
      else x
    ),
    params,
  )


@pytest.fixture(scope="module", params=[False, True], ids=["layers", "scanned"])
def made(request):
  """A stack, its inputs, its parameters without and with adapters."""
  rng = np.random.default_rng(0)
  model = Tower(request.param)
  x, mask = inputs(rng)
  base = init(model, x, mask)
  with adapted():
    boxed = init(model, x, mask)
  return model, (x, mask), nn.meta.unbox(base), boxed


def test_at_step_0_the_outputs_are_those_of_the_base(made):
  model, (x, mask), base, boxed = made
  fresh = trees.flatten(nn.meta.unbox(boxed))
  params = trees.unflatten(fresh | trees.flatten(base))

  with adapted():
    y = apply(model, params, x, mask)

  # What is added is zero, but XLA may fuse what is around it otherwise.
  assert np.abs(y - apply(model, base, x, mask)).max() < 1e-6


def test_unscanned_layers_are_drawn_as_without_adapters(rng):
  x, mask = inputs(rng)
  base = nn.meta.unbox(init(Tower(False), x, mask))
  with adapted():
    fresh = nn.meta.unbox(init(Tower(False), x, mask))

  own = {
    n: x for n, x in trees.flatten(fresh).items() if not lora_lib.is_adapter(n)
  }
  for name, array in trees.flatten(base).items():
    np.testing.assert_array_equal(own.pop(name), array, err_msg=name)
  assert not own


def test_only_targets_have_adapters_of_the_rank(made):
  params = trees.flatten(nn.meta.unbox(made[3]))
  adapters = {n: x.shape for n, x in params.items() if lora_lib.is_adapter(n)}
  head = DIM // HEADS
  expected = {
    **{
      f"attention/{n}": ((DIM, 2), (2, HEADS, head))
      for n in ("query", "key", "value")
    },
    "attention/out": ((HEADS, head, 2), (2, DIM)),
    "mlp/hidden": ((DIM, 2), (2, 12)),
  }
  scanned = "stack/layers/attention/out/kernel" in params
  layers = ["layers"] if scanned else ["layer_00", "layer_01"]
  lead = (2,) if scanned else ()
  assert adapters == {
    f"stack/{layer}/{module}/{name}": lead + shape
    for layer in layers
    for module, shapes in expected.items()
    for name, shape in zip(("lora_a", "lora_b"), shapes, strict=True)
  }


def test_merged_kernels_compute_the_same(made):
  model, (x, mask), base, boxed = made
  params = moved(nn.meta.unbox(boxed), np.random.default_rng(1))
  with adapted():
    y = apply(model, params, x, mask)

  merged = lora_lib.merge(params, LORA)
  assert not trees.diff(base, merged)
  z = apply(model, merged, x, mask)

  assert np.abs(y - z).max() < 1e-5
  assert np.abs(y - apply(model, base, x, mask)).max() > 0.1


def test_adapters_are_placed_like_the_axes_of_their_kernel(made):
  boxed = made[3]["stack"]
  lead = ("layers",) if "layers" in boxed else ()
  layer = boxed["layers" if lead else "layer_00"]
  out, hidden = layer["attention"]["out"], layer["mlp"]["hidden"]
  assert out["lora_a"].names == (*lead, axes.HEADS, axes.HEAD_DIM, "lora_rank")
  assert out["lora_b"].names == (*lead, "lora_rank", axes.EMBED)

  sizes = mesh.MeshShape(data=1, fsdp=4, tensor=2)
  specs = partition.param_specs(
    boxed, mesh.make_mesh(sizes), rules.rules("fsdp_tensor")
  )

  name = f"{'layers' if lead else 'layer_00'}/mlp/hidden"
  none = (None,) * len(lead)
  assert hidden["kernel"].names == (*lead, axes.EMBED, axes.MLP)
  assert specs[f"{name}/kernel"] == P(*none, "fsdp", "tensor")
  assert specs[f"{name}/lora_a"] == P(*none, "fsdp", None)
  assert specs[f"{name}/lora_b"] == P(*none, None, "tensor")


def test_the_product_is_that_of_the_paper(rng):
  model = Projection((5,), (axes.HEADS, axes.HEAD_DIM, axes.EMBED), num_in=2)
  x = rng.normal(size=(4, 2, 3)).astype(np.float32)
  lora = Lora(rank=2, alpha=5.0, targets=("",))
  with adapted(lora):
    params = moved(nn.meta.unbox(init(model, x)), rng)
    y = apply(model, params, x)

  a, b = params["lora_a"].reshape(6, 2), params["lora_b"]
  flat = x.reshape(4, 6)
  expected = flat @ params["kernel"].reshape(6, 5) + 2.5 * (flat @ a @ b)
  np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


def test_a_starts_with_the_variance_of_its_inputs(rng):
  model = Projection((5,), (axes.HEADS, axes.HEAD_DIM, axes.EMBED), num_in=2)
  with adapted(Lora(rank=64, targets=("",))):
    a = nn.meta.unbox(init(model, np.zeros((1, 8, 32), np.float32)))["lora_a"]

  assert a.shape == (8, 32, 64)
  # 16384 draws: the deviation is known to 1 / sqrt(2 x 16384) = 0.6 %.
  assert float(a.std()) == pytest.approx(256**-0.5, rel=0.03)


def test_dropout_zeroes_what_a_reads_in_training_only():
  dim = 400
  model = Projection((dim,), (axes.EMBED, axes.MLP), use_bias=False)
  lora = Lora(rank=dim, alpha=float(dim), targets=("",), dropout_rate=0.25)
  eye = jnp.eye(dim)
  params = {"kernel": 0.0 * eye, "lora_a": eye, "lora_b": eye}
  x = jnp.ones((10, dim))

  def run(**rngs):
    with adapted(lora):
      return np.asarray(apply(model, params, x, rngs=rngs))

  y = run(dropout=jax.random.key(0))

  np.testing.assert_array_equal(run(), 1.0)
  kept = y != 0
  np.testing.assert_allclose(y[kept], 1 / 0.75, rtol=1e-6)
  # 4000 draws: five deviations of sqrt(0.75 x 0.25 / 4000).
  assert kept.mean() == pytest.approx(0.75, abs=5 * 0.0069)
  np.testing.assert_array_equal(y, run(dropout=jax.random.key(0)))
  assert (y != run(dropout=jax.random.key(1))).any()


def test_what_is_excluded_has_no_adapter(rng):
  x, mask = inputs(rng)
  with adapted(excluded=("stack/layer_00/.*", ".*/hidden/lora_a")):
    params = nn.meta.unbox(init(Tower(False), x, mask))

  names = [n for n in trees.flatten(params) if lora_lib.is_adapter(n)]
  assert len(names) == 4 * 2
  assert all(n.startswith("stack/layer_01/attention/") for n in names)


PARAMS = {
  "tower/attention/query/kernel": 0,
  "tower/attention/query/lora_a": 0,
  "tower/attention/query/lora_b": 0,
  "tower/mlp/hidden/kernel": 0,
}


def test_a_target_without_a_module_is_refused_with_what_is_near():
  lora_lib.check(Lora(targets=(".*attention/.*",)), trees.unflatten(PARAMS))
  wrong = Lora(targets=(".*attention/.*", ".*/attention/quary"))

  with pytest.raises(
    errors.UserError,
    match=r"'\.\*/attention/quary' matches none of the 2 projections.*"
    r"Did you mean 'attention/query'.*'mlp/hidden'",
  ):
    lora_lib.check(wrong, trees.unflatten(PARAMS))


@pytest.mark.parametrize(
  "wrong",
  [
    dict(rank=0),
    dict(alpha=0.0),
    dict(dropout_rate=1.0),
    dict(targets=()),
    dict(targets=("(",)),
  ],
)
def test_wrong_settings_are_refused(wrong):
  (name,) = wrong
  name = "Not a regular expression" if wrong == dict(targets=("(",)) else name

  with pytest.raises(errors.UserError, match=name):
    Lora(**wrong)
