import jax
import jax.numpy as jnp
import numpy as np

from mmjax.generate import likelihood

PROMPTS = ([2, 3], [2, 4, 5, 3], [2])
ANSWERS = ([3, 1], [1], [5, 4, 3, 1])


def test_equals_the_product_of_what_follows_each_token(toy):
  model = toy(7)
  table = np.zeros((3, 4), np.int32)
  for row, ids in zip(table, ANSWERS, strict=True):
    row[: len(ids)] = ids
  mask = np.arange(4)[None] < np.array([[len(ids)] for ids in ANSWERS])

  got = jax.jit(
    lambda texts, ids, mask: likelihood.log_likelihoods(
      model.step, texts, ids, mask
    )
  )(model.start(PROMPTS, 8), jnp.asarray(table), jnp.asarray(mask))

  expected = [
    [
      sum(model.log_probs([*prompt, *ids[:i]])[t] for i, t in enumerate(ids))
      for ids in ANSWERS
    ]
    for prompt in PROMPTS
  ]
  np.testing.assert_allclose(got, expected, rtol=1e-5)
