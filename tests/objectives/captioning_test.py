import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core import errors
from mmjax.core.interfaces import ModelInfo, Objective
from mmjax.objectives.captioning import Captioning

V, D = 9, 4
INFO = ModelInfo(embed_dim=D, vocab_size=V)
KEY = jax.random.key(0)


@pytest.fixture
def case(spoken):
  """As `spoken`, with the first and third text said at once."""
  batch, sequence, kernel = spoken
  parallel = jnp.asarray([True, False, True, False])
  return {**batch, "text_parallel": parallel}, sequence, kernel


def _results(sequence, kernel):
  return {
    ("decode", "text", ("image",), "causal", "clean"): sequence,
    ("decode", "text", ("image",), "parallel", "clean"): sequence,
    ("judge", "lm", "clean"): lambda x, y, judge: judge(x @ kernel, y),
  }


def test_the_loss_is_that_of_the_tokens_after_the_first(
  case, table, said_by_hand
):
  batch, sequence, kernel = case
  apply = table(_results(sequence, kernel))
  loss, metrics = Captioning()(apply, batch, rng=KEY, train=True)
  values, right = said_by_hand(batch, sequence, kernel)
  np.testing.assert_allclose(loss.total, sum(values), rtol=1e-5)
  assert loss.weight == len(values) == 3 + 2
  accuracy = metrics["accuracy"]
  assert (accuracy.total, accuracy.weight) == (sum(right), 5)
  assert set(metrics) == {"accuracy"}


def test_texts_said_at_once_have_a_loss_of_their_own(case, table, said_by_hand):
  batch, sequence, kernel = case
  apply = table(_results(sequence, kernel))
  objective = Captioning(parallel=True)
  loss, metrics = objective(apply, batch, rng=KEY, train=True)
  assert apply.calls[0] == ("decode", "text", ("image",), "parallel", "clean")
  values, _ = said_by_hand(batch, sequence, kernel)
  np.testing.assert_allclose(loss.total, sum(values), rtol=1e-5)
  for name, part in (("parallel", values[:3]), ("causal", values[3:])):
    term = metrics[f"{name}_loss"]
    np.testing.assert_allclose(term.total, sum(part), rtol=1e-5)
    assert term.weight == len(part)


def test_what_does_not_count_may_be_anything(case, table):
  batch, sequence, kernel = case

  def loss(x, batch):
    apply = table(_results(sequence.replace(x=x), kernel))
    return Captioning()(apply, batch, rng=KEY, train=True)[0].mean

  run = jax.jit(jax.value_and_grad(loss))
  expected, grad = run(sequence.x, batch)
  text = jnp.where(batch["text_mask"], batch["text"], 5)
  # The third text is absent, the fourth is filler.
  other = {**batch, "text": text.at[2:].set(7)}
  got, other_grad = run(sequence.x.at[2:].set(99.0), other)
  assert got == expected
  np.testing.assert_array_equal(grad, other_grad)
  # The special token in front, the last position, padding, whole examples.
  np.testing.assert_array_equal(grad[:, 0], 0)
  np.testing.assert_array_equal(grad[:, -1], 0)
  np.testing.assert_array_equal(grad[1, 3:], 0)
  np.testing.assert_array_equal(grad[2:], 0)
  nothing = {**batch, "example_mask": jnp.zeros(4, bool)}
  got, grad = run(sequence.x, nothing)
  assert got == 0
  np.testing.assert_array_equal(grad, 0)


def test_what_is_given_is_read_in_one_order_and_may_be_fused(case, table):
  batch, sequence, kernel = case
  both = ("audio", "image")
  results = {
    **_results(sequence, kernel),
    ("decode", "text", both, "causal", "clean"): sequence,
  }
  for given in (both, both[::-1]):
    apply = table(results)
    objective = Captioning(given=given)
    objective(apply, batch, rng=KEY, train=True)
    assert apply.calls[0] == ("decode", "text", both, "causal", "clean")
  asked = []

  def apply(method, *args, view="clean"):
    asked.append((method, *args[:4]))
    if method == "decode":
      return sequence
    _, x, labels, judge = args
    return judge(x @ kernel, labels)

  Captioning(fused=True)(apply, batch, rng=KEY, train=True)
  assert asked[0] == ("decode", "text", ("image",), "causal", True)


def test_chance_is_the_loss_of_uniform_logits(case, table):
  batch, sequence, kernel = case
  apply = table(_results(sequence, np.zeros_like(kernel)))
  loss, _ = Captioning()(apply, batch, rng=KEY, train=True)
  np.testing.assert_allclose(Captioning().chance(INFO, 4), loss.mean, rtol=1e-6)


def test_it_declares_its_fields_and_its_head():
  objective = Captioning(text="answer", given=("audio", "text"), parallel=True)
  assert isinstance(objective, Objective)
  fields = {n: str(s) for n, s in objective.fields(INFO).items()}
  assert fields == {
    "audio": "float32[b, ?]",
    "text": "int32[b, ?]",
    "answer": "int32[b, ?]",
    "answer_parallel": "bool[b]",
  }
  assert objective.heads(INFO) == {"lm": {"name": "linear", "num_classes": V}}
  assert Captioning(tied=True, head="words").heads(INFO) == {
    "words": {
      "name": "tied_token",
      "num_classes": V,
      "tied_to": "text",
      "tied_in": "decoders",
      "transform": False,
    }
  }


def test_captioning_of_nothing_is_refused():
  with pytest.raises(errors.UserError, match="'causal_lm'"):
    Captioning(given=())


def test_the_view_is_of_what_is_given(case, table):
  batch, sequence, kernel = case
  results = _results(sequence, kernel)
  call = ("decode", "text", ("image",), "causal")
  apply = table(results | {(*call, "masked"): sequence})
  Captioning(view="masked")(apply, batch, rng=KEY, train=True)
  assert apply.calls[0] == (*call, "masked")
