import pytest

from mmjax.core import errors
from mmjax.finetune import layer_decay

D = 0.5
# Written down by hand for towers of 3 layers (image), 2 stacked ones (fusion),
# 1 + 2 (video: space, then time) and 2 + 1 (resampler, then stack).
TABLE = {
  "encoders_image/cls": 1 / 16,
  "encoders_image/stem/patches/kernel": 1 / 16,
  "encoders_image/stem/norm/scale": 1 / 16,
  "encoders_image/stack/layer_00/attention/query/kernel": 1 / 8,
  "encoders_image/stack/layer_01/mlp/out/bias": 1 / 4,
  "encoders_image/stack/layer_02/mlp_norm/scale": 1 / 2,
  "encoders_image/stack/norm/scale": 1.0,
  "encoders_image/pooling/query": 1.0,
  "encoders_image/pooling/mlp/hidden/kernel": 1.0,
  "encoders_video/stem/patches/kernel": 1 / 16,
  "encoders_video/stack/layer_00/mlp/out/kernel": 1 / 8,
  "encoders_video/stack/norm/scale": 1 / 8,
  "encoders_video/time_stack/layer_00/mlp/out/kernel": 1 / 4,
  "encoders_video/time_stack/layer_01/mlp/out/kernel": 1 / 2,
  "encoders_video/time_stack/norm/scale": 1.0,
  "fusion/type_image/table": 1 / 16,
  "fusion/resampler_text/layer_00/mlp/out/kernel": 1 / 8,
  "fusion/resampler_text/layer_01/mlp/out/kernel": 1 / 4,
  "fusion/resampler_text/norm/scale": 1 / 4,
  "fusion/stack/layer_00/mlp/out/kernel": 1 / 2,
  "fusion/stack/norm/scale": 1.0,
  "decoders_text/tokens/table": 1 / 8,
  "decoders_text/stack/layers/mlp/out/kernel": (1 / 4, 1 / 2),
  "decoders_text/stack/layers/mlp/out/bias": (1 / 4, 1 / 2),
  "decoders_text/stack/norm/scale": 1.0,
  "heads_label/logits/kernel": 1.0,
  "shared_space/image/kernel": 1.0,
}
SHAPES = {
  name: (2, 7, 7) if isinstance(factor, tuple) else (7, 7)
  for name, factor in TABLE.items()
}


@pytest.mark.parametrize("name", TABLE)
def test_factors_are_those_of_the_table(name):
  assert layer_decay.factors(SHAPES, D)[name] == TABLE[name]


def test_side_by_side_stacks_count_once():
  shapes = {
    f"fusion/stack_{m}/layer_0{i}/mlp/out/bias": (3,)
    for m in ("image", "text")
    for i in range(2)
  }

  factors = layer_decay.factors(shapes, D)

  assert [factors[name] for name in shapes] == [1 / 4, 1 / 2, 1 / 4, 1 / 2]


@pytest.mark.parametrize("decay", [0.0, -0.5, 1.01])
def test_wrong_decay_is_refused(decay):
  with pytest.raises(errors.UserError, match=f"layer_decay={decay}"):
    layer_decay.factors(SHAPES, decay)


def test_a_model_without_layers_is_refused():
  with pytest.raises(errors.UserError, match="no parameter is in a layer"):
    layer_decay.factors({"heads_label/logits/kernel": (2, 3)}, D)
