import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core import errors
from mmjax.core.interfaces import ModelInfo, Objective
from mmjax.objectives import next_token
from mmjax.objectives.causal_lm import CausalLM

V = 9
INFO = ModelInfo(embed_dim=4, vocab_size=V)
KEY = jax.random.key(0)


@pytest.mark.parametrize("part", ["decoder", "encoder"])
def test_the_loss_is_that_of_the_tokens_after_the_first(
  spoken, table, said_by_hand, part
):
  batch, sequence, kernel = spoken
  method = {"decoder": "decode", "encoder": "encode"}[part]
  apply = table(
    {
      (method, "text", "clean"): sequence,
      ("judge", "lm", "clean"): lambda x, y, judge: judge(x @ kernel, y),
    }
  )
  loss, metrics = CausalLM(part=part)(apply, batch, rng=KEY, train=True)
  values, right = said_by_hand(*spoken)
  np.testing.assert_allclose(loss.total, sum(values), rtol=1e-5)
  assert (loss.weight, metrics["accuracy"].total) == (5, sum(right))


def test_a_text_without_mask_counts_everywhere(spoken, table):
  batch, sequence, kernel = spoken
  apply = table(
    {
      ("decode", "text", "clean"): sequence,
      ("judge", "lm", "clean"): lambda x, y, judge: judge(0 * x @ kernel, y),
    }
  )
  loss, _ = CausalLM()(apply, {"text": batch["text"]}, rng=KEY, train=True)
  assert loss.weight == 4 * 3
  np.testing.assert_allclose(CausalLM().chance(INFO, 4), loss.mean, rtol=1e-6)


def test_it_declares_its_field_and_whose_table_it_shares():
  objective = CausalLM()
  assert isinstance(objective, Objective)
  assert [str(s) for s in objective.fields(INFO).values()] == ["int32[b, ?]"]
  assert objective.heads(INFO) == {"lm": {"name": "linear", "num_classes": V}}
  tied = {p: CausalLM(part=p, tied=True) for p in ("decoder", "encoder")}
  for part, objective in tied.items():
    assert objective.heads(INFO)["lm"]["tied_in"] == f"{part}s"
  assert tied["encoder"].needs_causal == ("text",)
  assert tied["decoder"].needs_causal == ()


def test_an_unknown_part_is_refused_with_the_nearest_name():
  with pytest.raises(errors.UserError, match="Did you mean 'decoder'"):
    CausalLM(part="decoders")


def test_no_text_of_a_row_says_the_begin_of_the_next():
  batch = {
    "text": jnp.asarray([[1, 5, 2, 1, 6, 2, 0]]),
    "text_positions": jnp.asarray([[0, 1, 2, 0, 1, 2, 3]]),
    "text_mask": jnp.asarray([[True] * 6 + [False]]),
  }
  labels, counts = next_token.targets(batch, "text")
  np.testing.assert_array_equal(labels, [[5, 2, 1, 6, 2, 0]])
  np.testing.assert_array_equal(counts, [[1, 1, 0, 1, 1, 0]])
