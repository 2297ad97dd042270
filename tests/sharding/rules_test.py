import pytest

from mmjax.core import axes, errors
from mmjax.sharding import mesh, rules

BATCH = ("replica", "data", "fsdp")
# Written by hand: what each table splits, and over what.
EXPECTED = {
  "data_parallel": {"act_batch": BATCH, "act_seq": "sequence"},
  "fsdp": {"act_batch": BATCH, "act_seq": "sequence", "embed": "fsdp"},
  "fsdp_expert": {
    "act_batch": BATCH,
    "act_seq": "sequence",
    "embed": "fsdp",
    "expert_mlp": "tensor",
  },
  "fsdp_tensor": {
    "act_batch": BATCH,
    "act_seq": "sequence",
    "embed": "fsdp",
    "expert_mlp": "tensor",
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


def test_changes_take_the_place_of_what_a_table_says():
  got = dict(rules.rules("fsdp", dict(vocab=["fsdp", "tensor"], embed=None)))

  assert got == {**dict(rules.rules("fsdp")), "vocab": ("fsdp", "tensor")} | {
    "embed": None
  }


@pytest.mark.parametrize(
  ("changes", "problem"),
  [
    (dict(vocabs="fsdp"), "'vocabs'.*Did you mean 'vocab'"),
    (dict(vocab="tensors"), "changes.vocab 'tensors'.*Did you mean 'tensor'"),
  ],
)
def test_changes_of_unknown_axes_are_refused(changes, problem):
  with pytest.raises(errors.UserError, match=problem):
    rules.rules("fsdp", changes)


def test_devices_that_would_compute_the_same_are_refused():
  sizes = dict(replica=2, data=2, fsdp=2, tensor=1, sequence=2)
  rules.check_used(rules.rules("fsdp"), sizes)
  with pytest.raises(
    errors.UserError, match=r"mesh.tensor=2.*\['fsdp_expert', 'fsdp_tensor'\]"
  ):
    rules.check_used(rules.rules("fsdp"), {**sizes, "tensor": 2})
