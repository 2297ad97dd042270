import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core import errors
from mmjax.core.interfaces import LossTerm
from mmjax.core.piecewise import Piecewise
from mmjax.objectives import weighting
from mmjax.objectives.classification import Classification
from mmjax.objectives.multitask import WeightedObjective


def _numbers(**values):
  return {name: jnp.float32(value) for name, value in values.items()}


def _terms(**means):
  return {
    n: LossTerm(jnp.float32(4 * m), jnp.float32(4)) for n, m in means.items()
  }


def _signals(means, *, weights=None, norms=None):
  return weighting.Signals(
    _terms(**means),
    _numbers(**(weights or dict.fromkeys(means, 1.0))),
    _numbers(**(norms or {})),
  )


def test_uncertainty_starts_with_the_weights_of_the_config():
  params, memory = weighting.Uncertainty().init(["a", "b"])

  assert weighting.Uncertainty().factors(params) == {"a": 1.0, "b": 1.0}
  assert memory == {}


def test_uncertainty_descends_its_loss():
  s = {"a": 0.3, "b": -1.0}
  means, weights = {"a": 8.0, "b": 0.5}, {"a": 1.0, "b": 0.25}

  def loss(s):  # Kendall et al. 2018, times the weight.
    return sum(
      weights[n] * (np.exp(-s[n]) * means[n] + s[n] / 2) for n in means
    )

  got, _ = weighting.Uncertainty().learn(
    {"log_variance": _numbers(**s)}, {}, _signals(means, weights=weights)
  )

  for n in s:
    up, down = ({**s, n: s[n] + d} for d in (1e-5, -1e-5))
    expected = (loss(up) - loss(down)) / 2e-5
    assert float(got["log_variance"][n]) == pytest.approx(expected, rel=1e-4)


def test_uncertainty_learns_nothing_of_what_does_not_count():
  params, _ = weighting.Uncertainty().init(["a", "b", "c"])
  terms = {"a": LossTerm(jnp.float32(0), jnp.float32(0))} | _terms(b=3.0)
  signals = weighting.Signals(terms, _numbers(a=1.0, b=1.0), {})

  got, _ = weighting.Uncertainty().learn(params, {}, signals)

  # `a` has no example, `c` is of another task.
  assert got["log_variance"] == {"a": 0.0, "b": -2.5, "c": 0.0}


def _settle(made, means_of, norms, *, steps=200, lr=0.02):
  """Lets factors learn by signs of gradients, as Adam does, on fixed norms."""

  @jax.jit
  def learn(params, memory, means, rate):
    terms = {n: LossTerm(mean, jnp.float32(1)) for n, mean in means.items()}
    weights = {n: jnp.float32(1) for n in norms}
    signals = weighting.Signals(terms, weights, _numbers(**norms))
    grads, memory = made.learn(params, memory, signals)
    step = lambda p, g: p - rate * jnp.sign(g)  # noqa: E731
    return jax.tree.map(step, params, grads), memory

  params, memory = made.init(list(norms))
  for step in range(steps):
    rate = jnp.float32(lr * (1 - step / steps))
    params, memory = learn(params, memory, _numbers(**means_of(step)), rate)
  factors = made.factors(params)
  return np.array([float(factors[n]) * norms[n] for n in norms])


def test_grad_norm_lets_all_pull_equally():
  made = weighting.GradNorm(shared=(".*",), alpha=0.0)

  pulls = _settle(
    made, lambda _: dict(a=1.0, b=1.0, c=1.0), dict(a=2.0, b=1.0, c=0.5)
  )

  np.testing.assert_allclose(pulls, pulls.mean(), rtol=0.03)


def test_grad_norm_lets_pull_harder_what_learns_more_slowly():
  made = weighting.GradNorm(shared=(".*",), alpha=0.5)

  # Of their first losses, 1/2 and 1/8 are left: r = 1.6 and 0.4.
  pulls = _settle(
    made,
    lambda step: dict(a=4.0, b=8.0) if step == 0 else dict(a=2.0, b=1.0),
    dict(a=1.0, b=1.0),
  )

  # Targets are m sqrt(1.6) and m sqrt(0.4) of the mean m, together less than
  # 2 m: the sum of gaps is the same for all a between m sqrt(1.6) and
  # 2 m - m sqrt(0.4).
  share = pulls[0] / pulls.mean()
  assert np.sqrt(1.6) - 0.02 < share < 2 - np.sqrt(0.4) + 0.02


def test_grad_norm_descends_the_loss_of_the_paper():
  made = weighting.GradNorm(shared=(".*",), alpha=1.5)
  logits, norms = (
    {"a": 0.5, "b": -0.2, "c": 0.1},
    {"a": 3.0, "b": 0.2, "c": 1.0},
  )
  initial, means = dict(a=2.0, b=5.0, c=1.0), dict(a=1.0, b=4.0, c=0.9)

  def pulls(z):
    w = np.exp(z) / np.exp(z).sum() * len(z)
    return w * np.array(list(norms.values()))

  z = np.array(list(logits.values()))
  ratio = np.array([means[n] / initial[n] for n in means])
  target = pulls(z).mean() * (ratio / ratio.mean()) ** 1.5  # Held fixed.

  got, memory = made.learn(
    {"log_weight": _numbers(**logits)},
    {"initial": _numbers(**initial)},
    _signals(means, norms=norms),
  )

  for i, n in enumerate(logits):
    d = 1e-5 * np.eye(3)[i]
    up, down = (np.abs(pulls(z + s * d) - target).sum() for s in (1, -1))
    expected = (up - down) / 2e-5
    assert float(got["log_weight"][n]) == pytest.approx(expected, rel=1e-3)
  assert memory == {"initial": _numbers(**initial)}


def test_grad_norm_remembers_the_first_losses():
  made = weighting.GradNorm(shared=(".*",))
  params, memory = made.init(["a", "b"])

  for means in (dict(a=3.0, b=0.0), dict(a=2.0, b=5.0), dict(a=1.0, b=4.0)):
    _, memory = made.learn(
      params, memory, _signals(means, norms=dict(a=1.0, b=1.0))
    )

  assert memory["initial"] == {"a": 3.0, "b": 5.0}


def test_grad_norm_leaves_out_what_has_no_gradient():
  made = weighting.GradNorm(shared=(".*",))
  params, memory = made.init(["a", "b", "off"])
  means, norms = dict(a=1.0, b=1.0, off=0.0), dict(a=2.0, b=1.1, off=0.0)

  got, _ = made.learn(params, memory, _signals(means, norms=norms))

  # The mean of a and b is 1.55 (with `off` both would be above it), so the
  # loss is G_a - G_b, and dw_i/dz_j = (i == j) - 1/3.
  expected = dict(a=(2 * 2 + 1.1) / 3, b=-(2 + 2 * 1.1) / 3, off=-0.9 / 3)
  slopes = {n: float(g) for n, g in got["log_weight"].items()}
  assert slopes == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", ["uncertainty", "grad_norm"])
def test_factors_are_positive_and_start_at_one(name):
  made = {
    "uncertainty": weighting.Uncertainty(),
    "grad_norm": weighting.GradNorm(shared=("x",)),
  }[name]
  params, _ = made.init(["a", "b"])
  ((kind, _),) = params.items()

  start = made.factors(params)
  far = made.factors({kind: _numbers(a=-9.0, b=9.0)})

  assert {n: float(f) for n, f in start.items()} == {"a": 1.0, "b": 1.0}
  assert all(float(f) > 0 for f in far.values())


RAMP = Piecewise(kind="linear", points=((0, 0.0), (9, 1.0)))
SOME = Classification(num_classes=2)
OBJECTIVES = {
  "mlm": WeightedObjective("main", SOME, 1.0),
  "vtp": WeightedObjective("main", SOME, RAMP),
  "off": WeightedObjective("main", SOME, 0.0),
}


def test_all_objectives_that_ever_count_are_learned():
  assert weighting.covered(weighting.Uncertainty(), OBJECTIVES) == [
    "mlm",
    "vtp",
  ]
  named = weighting.Uncertainty(objectives=("vtp",))
  assert weighting.covered(named, OBJECTIVES) == ["vtp"]


@pytest.mark.parametrize(
  "name, match",
  [
    ("mlmm", "config.weighting.objectives 'mlmm'. Did you mean 'mlm'"),
    ("off", "names 'off', whose weight is 0"),
  ],
)
def test_name_of_no_objective_that_counts_is_refused(name, match):
  made = weighting.Uncertainty(objectives=(name,))
  with pytest.raises(errors.UserError, match=match):
    weighting.covered(made, OBJECTIVES)


@pytest.mark.parametrize(
  "fields, match",
  [
    (dict(), "shared=\\(\\), expected patterns"),
    (dict(shared=("x",), alpha=-1.0), "alpha=-1.0, expected >= 0"),
  ],
)
def test_grad_norm_without_what_it_needs_is_refused(fields, match):
  with pytest.raises(errors.UserError, match=match):
    weighting.GradNorm(**fields)
