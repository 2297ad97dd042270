import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.train import resume

PARAMS = {"a": {"kernel": np.zeros((2, 3), np.float32)}, "b": np.zeros(4)}


def test_fingerprint_ignores_order_and_values():
  other = {
    "b": np.ones(4),
    "a": {"kernel": jax.ShapeDtypeStruct((2, 3), jnp.float32)},
  }

  assert resume.fingerprint(PARAMS) == resume.fingerprint(other)


@pytest.mark.parametrize(
  "changed",
  [
    {"a": {"kernel": np.zeros((3, 2), np.float32)}, "b": np.zeros(4)},
    {"a": {"kernel": np.zeros((2, 3), np.float16)}, "b": np.zeros(4)},
    {"a": {"weight": np.zeros((2, 3), np.float32)}, "b": np.zeros(4)},
  ],
)
def test_fingerprint_sees_shape_dtype_and_name(changed):
  assert resume.fingerprint(PARAMS) != resume.fingerprint(changed)


def test_compare_configs_lists_old_and_new_values():
  old = {"optimizer": {"peak_lr": 0.1}, "train": {"seed": 0}}
  new = {"optimizer": {"peak_lr": 0.2, "b1": 0.9}, "train": {"seed": 0}}

  assert resume.compare_configs(old, new).splitlines() == [
    "  optimizer.b1: '(absent)' -> 0.9",
    "  optimizer.peak_lr: 0.1 -> 0.2",
  ]


def test_compare_configs_leaves_out_free_groups():
  old = {"log": {"every_steps": 1}, "logic": 1, "train": {"a": 1, "b": 1}}
  new = {"log": {"every_steps": 2}, "logic": 2, "train": {"a": 2, "b": 1}}

  assert resume.compare_configs(old, new, free=("train.a", "log")) == (
    "  logic: 1 -> 2"
  )


def test_compare_configs_of_the_same_is_empty():
  assert resume.compare_configs({"a": {"b": 1}}, {"a": {"b": 1}}) == ""
