import pytest

from mmjax.core import axes, errors
from mmjax.sharding import mesh, rules

BATCH = ("replica", "data", "fsdp")
# Written by hand: what each table splits, and over what.
EXPECTED = {
  "data_parallel": {"act_batch": BATCH},
  "fsdp": {"act_batch": BATCH, "embed": "fsdp"},
  "fsdp_tensor": {
    "act_batch": BATCH,
    "embed": "fsdp",
    "heads": "tensor",
    "mlp": "tensor",
    "vocab": "tensor",
    "act_heads": "tensor",
    "act_mlp": "tensor",
    "act_vocab": "tensor",
  },
}


def test_every_table_is_expected():
  assert set(rules.RULES) == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_table_splits_what_it_says(name):
  split = {axis: over for axis, over in rules.rules(name) if over is not None}

  assert split == EXPECTED[name]


@pytest.mark.parametrize("name", rules.RULES)
def test_a_table_knows_every_axis_of_an_activation(name):
  # Linen leaves an axis that no rule names unconstrained, in silence.
  assert axes.ACTIVATION_AXES <= {axis for axis, _ in rules.rules(name)}


@pytest.mark.parametrize("name", rules.RULES)
def test_a_table_speaks_of_known_axes_only(name):
  for axis, over in rules.rules(name):
    assert axis in axes.ALL_AXES
    over = (over,) if isinstance(over, str) else (over or ())
    assert set(over) <= set(mesh.AXES)


@pytest.mark.parametrize("name", rules.RULES)
def test_a_table_names_each_axis_once(name):
  names = [axis for axis, _ in rules.rules(name)]

  assert len(names) == len(set(names))


def test_unknown_table_names_the_nearest():
  with pytest.raises(errors.UserError, match="Did you mean 'fsdp_tensor'"):
    rules.rules("fsdp_tensors")
