import jax
import pytest
from flax import linen as nn

from mmjax.train.model_call import ModelCall

STREAMS = ("dropout", "drop_path", "mask", "codebook")


class Streams(nn.Module):
  """Says which random streams it was given."""

  def given(self):
    return [stream for stream in STREAMS if self.has_rng(stream)]


@pytest.mark.parametrize(
  ("train", "expected"), [(True, [*STREAMS]), (False, ["mask", "codebook"])]
)
def test_what_drops_has_random_numbers_in_training_only(train, expected):
  call = ModelCall(Streams(), {}, jax.random.key(0), train=train)

  assert call("given", key="it") == expected
