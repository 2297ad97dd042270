import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.objectives.features import Features

X = np.random.default_rng(3).normal(size=(4, 6)).astype(np.float32)


def _apply(method, name, x=None, **kwargs):
  del kwargs
  if method == "pool":
    return jnp.asarray(X) * 1.0
  assert (method, name) == ("head", "label")
  return x @ jnp.ones((6, 3))


@pytest.mark.parametrize("outputs", [0, 3])
def test_it_learns_nothing(outputs):
  objective = Features(outputs=outputs)
  loss, metrics = objective(_apply, {}, rng=None, train=True)
  assert (float(loss.total), float(loss.weight)) == (0.0, 4.0)
  np.testing.assert_allclose(
    metrics["norm"].mean, np.mean(np.sqrt((X**2).sum(1))), rtol=1e-5
  )


def test_its_gradient_is_zero():
  def loss(scale):
    def apply(method, *args, **kwargs):
      return _apply(method, *args, **kwargs) * scale

    return Features(outputs=3)(apply, {}, rng=None, train=True)[0].total

  assert float(jax.grad(loss)(2.0)) == 0.0


def test_it_brings_a_head_only_if_asked():
  assert Features().heads(None) == {}
  assert Features(outputs=3, head="words").heads(None) == {
    "words": {"name": "linear", "num_classes": 3}
  }
  assert set(Features(modality="text").fields(None)) == {"text"}


def test_it_pools_after_fusion_with_what_is_given():
  asked = []

  def apply(method, *args):
    asked.append((method, *args))
    return jnp.asarray(X)

  objective = Features(modality="text", given=("image",))
  objective(apply, {}, rng=None, train=False)
  assert asked == [("pool", "text", ("image",))]
  assert set(objective.fields(None)) == {"image", "text"}


def test_its_head_may_be_of_another_kind():
  head = Features(outputs=3, head_kind="mlp").heads(None)["label"]
  assert head == {"name": "mlp", "num_classes": 3}
